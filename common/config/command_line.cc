#include "common/config/command_line.h"

#include <glog/logging.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>
#include <utility>

#include "common/base/status.h"

namespace tarn {

const char kVersion[] = "0.1.0";

namespace {

// Shows a number without digits that say nothing.
std::string Show(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

std::string ShowBytes(double value) {
  return std::isfinite(value) ? FormatByteSize(static_cast<uint64_t>(value)) : Show(value);
}

std::string OutOfRange(const std::string& text, const std::string& min, const std::string& max) {
  return text + " is out of range [" + min + ", " + max + "]";
}

// An empty result is CLI11's word for valid.
CLI::Validator Within(Range range) {
  CLI::Validator validator;
  validator.operation([range](const std::string& text) {
    double value = 0;
    // Text that is no number is for the conversion to refuse.
    if (!CLI::detail::lexical_cast(text, value)) return std::string();
    if (value >= range.min && value <= range.max) return std::string();
    return OutOfRange(text, Show(range.min), Show(range.max));
  });
  return validator;
}

// Binds text to `field` through one of parse.h's functions. Their errors reach the user whole,
// which needs CLI11's own exception.
template <typename Field, typename Parse>
CLI::Option* AddParsed(CLI::App& app, const std::string& name, Field& field,
                       const std::string& help, const std::string& type,
                       const std::string& shown_default, Parse parse) {
  CLI::Option* option = app.add_option_function<std::string>(
      name,
      [&field, name, parse](const std::string& text) {
        auto value = parse(text);
        if (!value.ok()) throw CLI::ValidationError(name, Message(value.status()));
        field = *std::move(value);
      },
      help);
  return option->type_name(type)->default_str(shown_default);
}

template <typename Number>
void AddNumber(CLI::App& app, const std::string& name, Number& field, const std::string& help,
               Range range) {
  app.add_option(name, field, help)->capture_default_str()->check(Within(range));
}

}  // namespace

struct CommandLine::Impl {
  CLI::App* app = nullptr;
  std::unique_ptr<CLI::App> owned;  // of the root; CLI11 owns those of commands
  std::vector<std::unique_ptr<CommandLine>> commands;
};

CommandLine::CommandLine(const std::string& program, const std::string& description)
    : impl_(std::make_unique<Impl>()) {
  impl_->owned = std::make_unique<CLI::App>(description, program);
  impl_->app = impl_->owned.get();
  impl_->app->set_version_flag("--version", program + " " + kVersion);
  impl_->app->set_config("--config", "", "File with the same options (TOML or INI)");
  // A misspelt option in the file is an error, as it is on the command line.
  impl_->app->allow_config_extras(CLI::config_extras_mode::error);
}

CommandLine::CommandLine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

CommandLine::~CommandLine() = default;

void CommandLine::Add(const std::string& name, bool& field, const std::string& help) {
  impl_->app->add_flag(name, field, help)->capture_default_str();
}

void CommandLine::Add(const std::string& name, int& field, const std::string& help, Range range) {
  AddNumber(*impl_->app, name, field, help, range);
}

void CommandLine::Add(const std::string& name, int64_t& field, const std::string& help,
                      Range range) {
  AddNumber(*impl_->app, name, field, help, range);
}

void CommandLine::Add(const std::string& name, uint64_t& field, const std::string& help,
                      Range range) {
  AddNumber(*impl_->app, name, field, help, range);
}

void CommandLine::Add(const std::string& name, double& field, const std::string& help,
                      Range range) {
  AddNumber(*impl_->app, name, field, help, range);
}

void CommandLine::Add(const std::string& name, std::string& field, const std::string& help) {
  impl_->app->add_option(name, field, help)->capture_default_str();
}

void CommandLine::Add(const std::string& name, std::vector<std::string>& field,
                      const std::string& help) {
  // One value an occurrence: otherwise the flag eats the positional arguments after it.
  impl_->app->add_option(name, field, help)->allow_extra_args(false);
}

void CommandLine::Add(const std::string& name, absl::Duration& field, const std::string& help) {
  AddParsed(*impl_->app, name, field, help, "DURATION", absl::FormatDuration(field), ParseDuration);
}

void CommandLine::Add(const std::string& name, HostPort& field, const std::string& help) {
  AddParsed(*impl_->app, name, field, help, "HOST:PORT", field.host.empty() ? "" : field.ToString(),
            ParseHostPort);
}

void CommandLine::AddBytes(const std::string& name, uint64_t& field, const std::string& help,
                           Range range) {
  const auto parse = [range](const std::string& text) -> absl::StatusOr<uint64_t> {
    ASSIGN_OR_RETURN(const uint64_t bytes, ParseByteSize(text));
    const double value = static_cast<double>(bytes);
    if (value >= range.min && value <= range.max) return bytes;
    return absl::InvalidArgumentError(
        OutOfRange(text, ShowBytes(std::max(range.min, 0.0)), ShowBytes(range.max)));
  };
  AddParsed(*impl_->app, name, field, help, "BYTES", FormatByteSize(field), parse);
}

void CommandLine::AddChoice(const std::string& name, std::string& field, const std::string& help,
                            std::vector<std::string> choices) {
  impl_->app->add_option(name, field, help)
      ->capture_default_str()
      ->check(CLI::IsMember(std::move(choices)));
}

void CommandLine::AddPositional(const std::string& name, std::string& field,
                                const std::string& help) {
  impl_->app->add_option(name, field, help);
}

void CommandLine::AddPositional(const std::string& name, std::vector<std::string>& field,
                                const std::string& help) {
  impl_->app->add_option(name, field, help);
}

void CommandLine::Require(const std::string& name) { impl_->app->get_option(name)->required(); }

bool CommandLine::Given(const std::string& name) const {
  return impl_->app->get_option(name)->count() > 0;
}

CommandLine& CommandLine::AddCommand(const std::string& name, const std::string& description) {
  auto impl = std::make_unique<Impl>();
  impl->app = impl_->app->add_subcommand(name, description);
  impl_->app->require_subcommand(1);
  impl_->commands.push_back(std::unique_ptr<CommandLine>(new CommandLine(std::move(impl))));
  return *impl_->commands.back();
}

bool CommandLine::Chosen() const { return impl_->app->parsed(); }

std::optional<int> CommandLine::Parse(int argc, const char* const* argv, std::ostream& out,
                                      std::ostream& err) {
  try {
    impl_->app->parse(argc, argv);
    return std::nullopt;
  } catch (const CLI::Success& success) {
    impl_->app->exit(success, out, err);
    return 0;
  } catch (const CLI::Error& error) {
    err << impl_->app->get_name() << ": " << error.what() << "\n"
        << "Run with --help for all options.\n";
    return 2;
  }
}

std::optional<int> CommandLine::Parse(int argc, const char* const* argv) {
  return Parse(argc, argv, std::cout, std::cerr);
}

}  // namespace tarn
