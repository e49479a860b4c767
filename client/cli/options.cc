#include <fstream>
#include <iostream>
#include <iterator>

#include "client/cli/commands.h"
#include "common/base/status.h"

namespace tarn::client {

void AddServerFlag(CommandLine& flags, std::string& server) {
  flags.Add("--server", server, "Router's gRPC address, host:port");
}

SamplingFlags::SamplingFlags(CommandLine& flags) : flags_(flags) {
  flags.Add("--max-tokens", max_tokens_, "Tokens of the answer, at most", {1, 1 << 24});
  flags.Add("--min-tokens", min_tokens_, "Tokens of the answer before it may end", {0, 1 << 24});
  flags.Add("--temperature", temperature_, "0 is greedy", {0, 100});
  flags.Add("--top-p", top_p_, "Likeliest tokens of this probability in all", {0, 1});
  flags.Add("--top-k", top_k_, "This many likeliest tokens; 0 means all", {-1, 1 << 24});
  flags.Add("--min-p", min_p_, "Tokens at least this likely, as a part of the likeliest", {0, 1});
  flags.Add("--repetition-penalty", repetition_penalty_, "Over prompt and answer", {0, 100});
  flags.Add("--presence-penalty", presence_penalty_, "Over the answer", {-2, 2});
  flags.Add("--frequency-penalty", frequency_penalty_, "Over the answer", {-2, 2});
  flags.Add("--seed", seed_, "Same seed, same answer");
  flags.Add("--stop", stop_, "Ends the answer where this text appears; may be repeated");
  flags.Add("--ignore-eos", ignore_eos_, "Go on to --max-tokens");
  flags.Add("--logprobs", logprobs_, "Log probabilities of this many likeliest tokens", {0, 20});
}

v1::SamplingParams SamplingFlags::ToProto() const {
  v1::SamplingParams proto;
  proto.set_max_tokens(max_tokens_);
  proto.set_min_tokens(min_tokens_);
  if (flags_.Given("--temperature")) proto.set_temperature(static_cast<float>(temperature_));
  if (flags_.Given("--top-p")) proto.set_top_p(static_cast<float>(top_p_));
  if (flags_.Given("--top-k")) proto.set_top_k(top_k_);
  if (flags_.Given("--min-p")) proto.set_min_p(static_cast<float>(min_p_));
  if (flags_.Given("--repetition-penalty")) {
    proto.set_repetition_penalty(static_cast<float>(repetition_penalty_));
  }
  if (flags_.Given("--presence-penalty")) {
    proto.set_presence_penalty(static_cast<float>(presence_penalty_));
  }
  if (flags_.Given("--frequency-penalty")) {
    proto.set_frequency_penalty(static_cast<float>(frequency_penalty_));
  }
  if (flags_.Given("--seed")) proto.set_seed(seed_);
  if (flags_.Given("--logprobs")) proto.set_logprobs(logprobs_);
  for (const std::string& stop : stop_) proto.add_stop(stop);
  proto.set_ignore_eos(ignore_eos_);
  return proto;
}

int Fail(const absl::Status& status) {
  std::cerr << "tarn: " << Message(status) << std::endl;
  return 1;
}

absl::StatusOr<std::string> ReadInput(const std::string& path) {
  if (path == "-") {
    return std::string(std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>());
  }
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file && text.empty()) return absl::NotFoundError(path + ": cannot be read");
  return text;
}

}  // namespace tarn::client
