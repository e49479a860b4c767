#include "client/cli/batch.h"

#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace tarn::client {
namespace {

using Json = nlohmann::json;

absl::Status SetSampling(const Json& line, v1::SamplingParams& sampling) {
  // Types are checked by get<>, which throws; the caller catches.
  for (const auto& [name, value] : line.items()) {
    if (name == "max_tokens")
      sampling.set_max_tokens(value.get<uint32_t>());
    else if (name == "min_tokens")
      sampling.set_min_tokens(value.get<uint32_t>());
    else if (name == "temperature")
      sampling.set_temperature(value.get<float>());
    else if (name == "top_p")
      sampling.set_top_p(value.get<float>());
    else if (name == "top_k")
      sampling.set_top_k(value.get<int>());
    else if (name == "min_p")
      sampling.set_min_p(value.get<float>());
    else if (name == "repetition_penalty")
      sampling.set_repetition_penalty(value.get<float>());
    else if (name == "presence_penalty")
      sampling.set_presence_penalty(value.get<float>());
    else if (name == "frequency_penalty")
      sampling.set_frequency_penalty(value.get<float>());
    else if (name == "seed")
      sampling.set_seed(value.get<uint64_t>());
    else if (name == "ignore_eos")
      sampling.set_ignore_eos(value.get<bool>());
    else if (name == "stop")
      for (const auto& s : value) sampling.add_stop(s.get<std::string>());
    else if (name == "stop_token_ids")
      for (const auto& id : value) sampling.add_stop_token_ids(id.get<int>());
    else if (name != "prompt" && name != "tokens" && name != "tenant" && name != "cache_salt" &&
             name != "timeout_ms")
      return absl::InvalidArgumentError("unknown field " + name);
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::GenerateRequest> ParseLine(const std::string& text,
                                              const v1::SamplingParams& defaults) {
  const Json line = Json::parse(text);
  if (!line.is_object()) return absl::InvalidArgumentError("is not a JSON object");
  v1::GenerateRequest request;
  v1::RequestOptions& options = *request.mutable_options();
  *options.mutable_sampling() = defaults;
  RETURN_IF_ERROR(SetSampling(line, *options.mutable_sampling()));
  options.set_tenant(line.value("tenant", ""));
  options.set_cache_salt(line.value("cache_salt", ""));
  if (line.contains("timeout_ms")) options.set_timeout_us(line["timeout_ms"].get<int64_t>() * 1000);
  if (line.contains("tokens") == line.contains("prompt")) {
    return absl::InvalidArgumentError("needs one of prompt and tokens");
  }
  if (line.contains("prompt")) {
    request.set_text(line["prompt"].get<std::string>());
  } else {
    for (const Json& id : line["tokens"]) request.mutable_tokens()->add_ids(id.get<int32_t>());
  }
  return request;
}

}  // namespace

absl::StatusOr<std::vector<v1::GenerateRequest>> ParseRequests(const std::string& jsonl,
                                                               const v1::SamplingParams& defaults) {
  std::vector<v1::GenerateRequest> requests;
  std::istringstream lines(jsonl);
  std::string text;
  for (int number = 1; std::getline(lines, text); ++number) {
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = absl::StrCat("line ", number);
    try {
      auto request = ParseLine(text, defaults);
      if (!request.ok()) return Annotate(request.status(), where);
      requests.push_back(*std::move(request));
    } catch (const Json::exception& error) {
      return absl::InvalidArgumentError(where + ": " + error.what());
    }
  }
  return requests;
}

std::string FinishReasonName(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_STOP:
      return "stop";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    case v1::FINISH_REASON_CANCELLED:
      return "cancelled";
    default:
      return "";
  }
}

std::string AnswerJson(size_t index, const BatchAnswer& answer) {
  Json line = {{"index", index}};
  if (!answer.status.ok()) {
    line["error"] = Message(answer.status);
    line["code"] = static_cast<int>(answer.status.code());
    return line.dump();
  }
  line["token_ids"] = answer.token_ids;
  line["text"] = answer.text;
  line["finish_reason"] = FinishReasonName(answer.finish_reason);
  line["prompt_tokens"] = answer.usage.prompt_tokens();
  line["cached_tokens"] = answer.usage.cached_tokens();
  line["ttft_ms"] = answer.ttft_ms;
  line["total_ms"] = answer.total_ms;
  line["prefill_node"] = answer.usage.prefill_node();
  line["decode_node"] = answer.usage.decode_node();
  return line.dump();
}

}  // namespace tarn::client
