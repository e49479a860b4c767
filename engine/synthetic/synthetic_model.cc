#include "engine/synthetic/synthetic_model.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "engine/synthetic/config_files.h"
#include "engine/synthetic/random_tensor.h"
#include "engine/synthetic/weight_writer.h"

namespace tarn::engine {
namespace {

namespace fs = std::filesystem;

absl::Status CheckSpec(const SyntheticSpec& spec, const WriteModelOptions& options) {
  if (options.threads < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads is ", options.threads, ", expected at least 1"));
  }
  if (spec.max_shard_bytes < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_shard_bytes is ", spec.max_shard_bytes, ", expected at least 0"));
  }
  if (spec.used_vocab < 0 || spec.used_vocab > spec.config.vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat("used_vocab is ", spec.used_vocab,
                                                   ", expected 0 to vocab_size, which is ",
                                                   spec.config.vocab_size));
  }
  // The reader's own rules.
  return ModelConfig::Parse(MakeConfigJson(spec), "config.json").status();
}

absl::Status CheckTarget(const fs::path& target, bool overwrite) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(target, error);
  if (!fs::exists(status)) return absl::OkStatus();
  const auto refuse = [&](const char* why) {
    return absl::AlreadyExistsError(absl::StrCat(target.string(), ": ", why));
  };
  if (!fs::is_directory(status)) return refuse("exists and is not a directory");
  const bool empty = fs::is_empty(target, error);
  if (error) return FileError(error.value(), "cannot be read", target.string());
  if (empty) return absl::OkStatus();
  if (!overwrite) return refuse("is not empty; choose another directory, or overwrite");
  // Overwriting deletes: only what is a model.
  if (fs::exists(target / "config.json", error)) return absl::OkStatus();
  return refuse("has files but no config.json: not a model, not overwritten");
}

absl::Status CheckSpace(const fs::path& parent, int64_t bytes) {
  std::error_code error;
  const fs::space_info space = fs::space(parent, error);
  if (error || space.available >= static_cast<uintmax_t>(bytes)) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(parent.string(), ": the weights take ", bytes,
                                                   " bytes, the disk has ", space.available));
}

// A directory beside the target, removed with all that is in it.
class Staging {
 public:
  static absl::StatusOr<std::unique_ptr<Staging>> Create(const fs::path& target) {
    std::string name = target.string() + ".partial.XXXXXX";
    if (mkdtemp(name.data()) == nullptr) {
      return FileError(errno, "cannot be created", name);
    }
    // mkdtemp's is for the owner alone; a model may be served by another user.
    chmod(name.c_str(), 0755);
    return std::make_unique<Staging>(name);
  }
  explicit Staging(fs::path root) : root_(std::move(root)) {}
  ~Staging() {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  const fs::path& root() const { return root_; }

 private:
  const fs::path root_;
};

absl::Status Rename(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  return error ? FileError(error.value(), "cannot be renamed to " + to.string(), from.string())
               : absl::OkStatus();
}

// What is at `target` moves into `graveyard` first; if the second step fails it comes back.
absl::Status Replace(const fs::path& made, const fs::path& target, const fs::path& graveyard) {
  std::error_code error;
  if (!fs::exists(target, error)) return Rename(made, target);
  RETURN_IF_ERROR(Rename(target, graveyard));
  const absl::Status status = Rename(made, target);
  if (!status.ok()) fs::rename(graveyard, target, error);
  return status;
}

absl::Status WriteFiles(const std::string& directory, const SyntheticSpec& spec,
                        const WriteModelOptions& options) {
  RETURN_IF_ERROR(WriteTextFile(directory + "/config.json", MakeConfigJson(spec)));
  RETURN_IF_ERROR(
      WriteTextFile(directory + "/generation_config.json", MakeGenerationConfigJson(spec.config)));
  RETURN_IF_ERROR(WriteWeights(directory, spec, options.threads, options.progress));
  return options.add_files ? options.add_files(directory) : absl::OkStatus();
}

}  // namespace

int64_t ParameterCount(const ModelConfig& config) {
  int64_t count = 0;
  for (const RandomTensor& tensor : ListTensors(config)) count += tensor.elements();
  return count;
}

absl::Status WriteModel(const std::string& directory, const SyntheticSpec& spec,
                        const WriteModelOptions& options) {
  RETURN_IF_ERROR(Annotate(CheckSpec(spec, options), "synthetic model"));
  if (directory.empty()) return absl::InvalidArgumentError("synthetic model: empty directory name");
  std::error_code error;
  fs::path target = fs::absolute(directory, error).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();  // "models/a/"
  RETURN_IF_ERROR(CheckTarget(target, options.overwrite));
  fs::create_directories(target.parent_path(), error);
  if (error) {
    return FileError(error.value(), "cannot be created", target.parent_path().string());
  }
  RETURN_IF_ERROR(CheckSpace(target.parent_path(), WeightBytes(spec)));
  ASSIGN_OR_RETURN(const std::unique_ptr<Staging> staging, Staging::Create(target));
  const fs::path made = staging->root() / "new";
  fs::create_directory(made, error);
  if (error) return FileError(error.value(), "cannot be created", made.string());
  RETURN_IF_ERROR(WriteFiles(made.string(), spec, options));
  return Replace(made, target, staging->root() / "old");
}

}  // namespace tarn::engine
