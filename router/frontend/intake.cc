#include "router/frontend/intake.h"

#include <cinttypes>
#include <cstdio>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "engine/request/resolve.h"

namespace tarn::router {
namespace {

absl::Status CheckLength(const char* field, const std::string& value, size_t limit) {
  if (value.size() <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": has ", value.size(), " bytes; at most ", limit));
}

absl::Status CheckTimeout(int64_t timeout_us, absl::Duration limit) {
  if (timeout_us >= 0 && absl::Microseconds(timeout_us) <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("timeout_us: is ", timeout_us, "; 0 to ", absl::ToInt64Microseconds(limit)));
}

}  // namespace

Intake::Intake(const FrontendOptions& options, std::shared_ptr<const engine::TextModel> model,
               Random random, metrics::Registry& registry)
    : options_(options),
      model_(std::move(model)),
      requests_(registry.AddCounterFamily(
          "tarn_frontend_requests_total",
          "Requests that have ended, by API and status code (OK: answered in full).",
          {.names = {"api", "code"}})),
      tokenize_seconds_(registry.AddHistogram("tarn_frontend_tokenize_seconds",
                                              "Time from receipt to tokens, of one request.",
                                              metrics::ExponentialBounds(0.0001, 2, 16))),
      random_(std::move(random)) {}

absl::Status Intake::CheckModel(const std::string& name) const {
  if (name.empty() || name == model_->name) return absl::OkStatus();
  RETURN_IF_ERROR(engine::CheckUtf8("model", name));
  return absl::NotFoundError(
      absl::StrCat("model '", name, "' is not served; served: ", model_->name));
}

absl::Status Intake::Check(const v1::RequestOptions& options) const {
  RETURN_IF_ERROR(CheckModel(options.model()));
  if (options.n() > static_cast<uint32_t>(options_.max_choices)) {
    return absl::InvalidArgumentError(
        absl::StrCat("n: is ", options.n(), "; 1 to ", options_.max_choices));
  }
  RETURN_IF_ERROR(CheckLength("tenant", options.tenant(), options_.max_name_bytes));
  RETURN_IF_ERROR(CheckLength("cache_salt", options.cache_salt(), options_.max_name_bytes));
  RETURN_IF_ERROR(CheckLength("request_id", options.request_id(), options_.max_name_bytes));
  return CheckTimeout(options.timeout_us(), options_.max_timeout);
}

absl::StatusOr<std::vector<TokenId>> Intake::Encode(const std::string& text) const {
  return engine::EncodePrompt(text, *model_);
}

absl::StatusOr<std::vector<TokenId>> Intake::Render(
    std::span<const engine::ChatMessage> messages, const engine::ChatRenderOptions& options) const {
  if (!model_->chat.ok()) {
    return absl::FailedPreconditionError(absl::StrCat("messages: ", model_->name, " cannot chat (",
                                                      Message(model_->chat.status()),
                                                      "); ask for a completion of a prompt"));
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string field = absl::StrCat("messages[", i, "]");
    RETURN_IF_ERROR(engine::CheckUtf8(field + ".role", messages[i].role));
    RETURN_IF_ERROR(engine::CheckUtf8(field + ".content", messages[i].content));
  }
  return model_->chat->Render(messages, options);
}

absl::StatusOr<CompletionRequest> Intake::Accept(std::vector<std::vector<TokenId>> prompts,
                                                 const v1::RequestOptions& options,
                                                 absl::Time received, absl::Time tokenized) {
  CompletionRequest request;
  for (std::vector<TokenId>& prompt : prompts) {
    ASSIGN_OR_RETURN(engine::ResolvedRequest resolved,
                     engine::Resolve(std::move(prompt), options.sampling(), *model_, Draw()));
    request.prompts.push_back(std::move(resolved));
  }
  request.choices_per_prompt = options.n() == 0 ? 1 : static_cast<int>(options.n());
  request.stream = options.stream();
  request.detokenize = !options.has_detokenize() || options.detokenize();
  request.tenant = options.tenant();
  request.cache_salt = options.cache_salt();
  request.priority = options.priority();
  ASSIGN_OR_RETURN(request.slo, SloOf(options));
  request.received = received;
  request.deadline =
      received + (options.timeout_us() == 0 ? options_.default_timeout
                                            : absl::Microseconds(options.timeout_us()));
  request.tokenize = tokenized - received;
  tokenize_seconds_.Observe(absl::ToDoubleSeconds(request.tokenize));
  return request;
}

absl::StatusOr<Slo> Intake::SloOf(const v1::RequestOptions& options) const {
  const std::string& asked = options.service_tier();
  const bool unnamed = asked.empty() || asked == "auto" || asked == "default";
  const auto it = options_.classes.find(unnamed ? "default" : asked);
  if (it != options_.classes.end()) return it->second;
  if (unnamed) return Slo();
  std::string known = "auto, default";
  for (const auto& [name, slo] : options_.classes) {
    if (name != "default") absl::StrAppend(&known, ", ", name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("service_tier: there is no \"", asked, "\"; there are ", known));
}

std::string Intake::DrawId(const std::string& prefix) {
  char digits[25];
  std::snprintf(digits, sizeof(digits), "%016" PRIx64 "%08" PRIx32, Draw(),
                static_cast<uint32_t>(Draw()));
  return prefix + "-" + digits;
}

void Intake::Count(const std::string& api, const absl::Status& status) {
  requests_.With({api, absl::StatusCodeToString(status.code())}).Add();
}

uint64_t Intake::Draw() {
  MutexLock lock(mutex_);
  return random_.Next();
}

}  // namespace tarn::router
