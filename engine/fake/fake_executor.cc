#include "engine/fake/fake_executor.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace tarn::engine {
namespace {

uint64_t Mix(uint64_t a, uint64_t b) {
  const uint64_t words[2] = {a, b};
  return XXH3_64bits(words, sizeof(words));
}

double ToUnit(uint64_t hash) { return static_cast<double>(hash >> 11) * 0x1p-53; }

bool IsDecode(const StepSequence& sequence) {
  return sequence.tokens.size() == 1 && sequence.position > 0;
}

// Pages from this one on hold new tokens.
size_t FirstWrittenPage(const StepSequence& sequence, int block_tokens) {
  return static_cast<size_t>(sequence.position) / block_tokens;
}

size_t PagesNeeded(const StepSequence& sequence, int block_tokens) {
  return (sequence.position + sequence.tokens.size() + block_tokens - 1) / block_tokens;
}

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

absl::Status CheckOptions(const FakeOptions& options, const KvArena& arena) {
  RETURN_IF_ERROR(options.layout.Validate());
  if (options.vocab_size < 2) return Invalid("vocab_size is ", options.vocab_size, "; at least 2");
  if (options.max_context < 1) {
    return Invalid("max_context is ", options.max_context, "; at least 1");
  }
  if (options.eos_token < -1 || options.eos_token >= options.vocab_size) {
    return Invalid("eos_token is ", options.eos_token, "; must be -1 or below vocab_size ",
                   options.vocab_size);
  }
  if (!(options.eos_probability >= 0 && options.eos_probability <= 1)) {
    return Invalid("eos_probability is ", options.eos_probability, "; must be in [0, 1]");
  }
  const FakePace& pace = options.pace;
  for (const absl::Duration cost :
       {pace.per_step, pace.per_prefill_token, pace.per_decode_sequence, pace.per_context_token}) {
    if (cost < absl::ZeroDuration()) return Invalid("pace has a negative cost");
  }
  if (arena.base == nullptr || arena.page_count < 1) {
    return Invalid("arena has ", arena.page_count, " pages; at least 1 at an address");
  }
  return absl::OkStatus();
}

bool Forbidden(TokenId token, const SampleRequest& request) {
  const size_t prompt =
      std::min<size_t>(std::max(request.prompt_length, 0), request.context.size());
  const auto& forbidden = request.params->forbidden_before_min_tokens;
  return request.context.size() - prompt < static_cast<size_t>(request.params->min_tokens) &&
         std::find(forbidden.begin(), forbidden.end(), token) != forbidden.end();
}

}  // namespace

absl::Duration ModelledStepTime(const FakePace& pace, std::span<const StepSequence> batch) {
  absl::Duration time = pace.per_step;
  for (const StepSequence& sequence : batch) {
    const int64_t tokens = static_cast<int64_t>(sequence.tokens.size());
    time += IsDecode(sequence) ? pace.per_decode_sequence : tokens * pace.per_prefill_token;
    time += (sequence.position + tokens) * pace.per_context_token;
  }
  return time;
}

absl::StatusOr<std::unique_ptr<FakeExecutor>> FakeExecutor::Create(FakeOptions options,
                                                                   KvArena arena) {
  RETURN_IF_ERROR(Annotate(CheckOptions(options, arena), "fake executor"));
  return std::unique_ptr<FakeExecutor>(new FakeExecutor(std::move(options), arena));
}

FakeExecutor::FakeExecutor(FakeOptions options, KvArena arena)
    : options_(std::move(options)), arena_(arena), written_in_(arena.page_count) {
  const BlockLayout& layout = options_.layout;
  row_bytes_ = static_cast<size_t>(layout.head_dim) * KvTypeBytes(layout.type);
  tiles_ = layout.kv_heads * layout.layers * 2;
  model_.name = options_.name;
  model_.fingerprint = Mix(options_.model_seed, Mix(layout.Fingerprint(), options_.vocab_size));
  model_.vocab_size = options_.vocab_size;
  model_.max_context = options_.max_context;
  model_.device = "fake";
}

absl::StatusOr<std::vector<StepOutput>> FakeExecutor::Step(std::span<const StepSequence> batch) {
  for (size_t i = 0; i < batch.size(); ++i) {
    RETURN_IF_ERROR(Annotate(Check(batch[i]), "sequence " + std::to_string(i)));
  }
  RETURN_IF_ERROR(CheckSharing(batch));
  std::vector<StepOutput> outputs;
  outputs.reserve(batch.size());
  for (const StepSequence& sequence : batch) outputs.push_back(Run(sequence));
  if (options_.wait) options_.wait(ModelledStepTime(options_.pace, batch));
  return outputs;
}

absl::Status FakeExecutor::Check(const StepSequence& sequence) const {
  const int block_tokens = options_.layout.block_tokens;
  if (sequence.tokens.empty()) return Invalid("no new tokens; at least one");
  if (sequence.position < 0) return Invalid("position is ", sequence.position, "; at least 0");
  const size_t length = sequence.position + sequence.tokens.size();
  if (length > static_cast<size_t>(options_.max_context)) {
    return Invalid(length, " tokens; the model's context has ", options_.max_context);
  }
  for (const TokenId token : sequence.tokens) {
    if (token >= 0 && token < options_.vocab_size) continue;
    return Invalid("token ", token, " is outside the vocabulary of ", options_.vocab_size);
  }
  if (sequence.pages.size() < PagesNeeded(sequence, block_tokens)) {
    return Invalid(sequence.pages.size(), " pages of ", block_tokens, " tokens; ", length,
                   " tokens need ", PagesNeeded(sequence, block_tokens));
  }
  for (const PageIndex page : sequence.pages) {
    if (page >= 0 && page < arena_.page_count) continue;
    return Invalid("page ", page, " is outside the arena of ", arena_.page_count);
  }
  if (!sequence.sample.has_value()) return absl::OkStatus();
  if (sequence.sample->params == nullptr) return Invalid("sample has no parameters");
  if (sequence.sample->context.size() != length) {
    return Invalid("sample's context has ", sequence.sample->context.size(), " tokens; must be ",
                   length);
  }
  return absl::OkStatus();
}

absl::Status FakeExecutor::CheckSharing(std::span<const StepSequence> batch) {
  const int block_tokens = options_.layout.block_tokens;
  ++step_;
  for (size_t i = 0; i < batch.size(); ++i) {
    const size_t end = PagesNeeded(batch[i], block_tokens);
    for (size_t page = FirstWrittenPage(batch[i], block_tokens); page < end; ++page) {
      uint64_t& written_in = written_in_[batch[i].pages[page]];
      if (written_in == step_) {
        return Invalid("sequence ", i, ": page ", batch[i].pages[page], " is written twice");
      }
      written_in = step_;
    }
  }
  for (size_t i = 0; i < batch.size(); ++i) {
    const size_t end = FirstWrittenPage(batch[i], block_tokens);
    for (size_t page = 0; page < end; ++page) {
      if (written_in_[batch[i].pages[page]] != step_) continue;
      return Invalid("sequence ", i, ": page ", batch[i].pages[page],
                     " is read and also written in this step");
    }
  }
  return absl::OkStatus();
}

StepOutput FakeExecutor::Run(const StepSequence& sequence) {
  const int block_tokens = options_.layout.block_tokens;
  const int end = sequence.position + static_cast<int>(sequence.tokens.size());
  uint64_t chain = model_.fingerprint;
  for (int position = 0; position < end; ++position) {
    const PageIndex page = sequence.pages[position / block_tokens];
    const int slot = position % block_tokens;
    if (position >= sequence.position) {
      const TokenId token = sequence.tokens[position - sequence.position];
      FillSlot(page, slot, Mix(chain, Mix(position, token)));
    }
    // New slots are read back too: then the chain cannot depend on how the prompt was cut.
    chain = Mix(chain, HashSlot(page, slot));
  }
  StepOutput output;
  if (sequence.sample.has_value()) output.sampled = Draw(*sequence.sample, chain);
  return output;
}

SampledToken FakeExecutor::Draw(const SampleRequest& request, uint64_t chain) const {
  const bool greedy = request.params->temperature < 1e-5f;  // as Sample
  const uint64_t seed = greedy ? 0 : Mix(request.params->seed, request.context.size());
  const uint64_t hash = Mix(chain, seed);
  SampledToken sampled;
  const int others = options_.vocab_size - (options_.eos_token >= 0 ? 1 : 0);
  sampled.token = static_cast<TokenId>(hash % others);
  if (options_.eos_token >= 0) {
    if (sampled.token >= options_.eos_token) ++sampled.token;
    const bool ends = ToUnit(Mix(hash, 1)) < options_.eos_probability;
    if (ends && !Forbidden(options_.eos_token, request)) sampled.token = options_.eos_token;
  }
  if (request.params->logprobs < 0) return sampled;
  sampled.logprob = -0.5f;
  for (int rank = 0; rank < std::min(request.params->logprobs, options_.vocab_size); ++rank) {
    const TokenId token = (sampled.token + rank) % options_.vocab_size;
    sampled.top_logprobs.push_back({token, -0.5f * static_cast<float>(rank + 1)});
  }
  return sampled;
}

std::byte* FakeExecutor::Row(PageIndex page, int slot) const {
  const BlockLayout& layout = options_.layout;
  return arena_.base + static_cast<size_t>(page) * layout.page_bytes() + layout.payload_offset() +
         static_cast<size_t>(slot) * row_bytes_;
}

uint64_t FakeExecutor::HashSlot(PageIndex page, int slot) const {
  const size_t tile_bytes = options_.layout.tile_bytes();
  const std::byte* const first = Row(page, slot);
  uint64_t hash = 0;
  for (int tile = 0; tile < tiles_; ++tile) {
    hash = XXH3_64bits_withSeed(first + tile * tile_bytes, row_bytes_, hash);
  }
  return hash;
}

void FakeExecutor::FillSlot(PageIndex page, int slot, uint64_t digest) {
  const size_t tile_bytes = options_.layout.tile_bytes();
  std::byte* const first = Row(page, slot);
  for (int tile = 0; tile < tiles_; ++tile) {
    uint64_t word = Mix(digest, tile);
    for (size_t at = 0; at < row_bytes_; at += sizeof(word)) {
      word = word * 0x9e3779b97f4a7c15 + 0x632be59bd9b4e019;
      const size_t count = std::min(sizeof(word), row_bytes_ - at);
      std::memcpy(first + tile * tile_bytes + at, &word, count);
    }
  }
}

}  // namespace tarn::engine
