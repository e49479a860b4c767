#pragma once

// One request of a client, from checked prompts to text: a Generation for each choice, and what
// both protocols need of their answers. Protocol-neutral.
//
// Loop-only; nothing blocks.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/runtime/event_loop.h"
#include "engine/request/resolve.h"
#include "engine/request/text_model.h"
#include "engine/sampling/sampling.h"
#include "router/session/gateway.h"

namespace tarn::router {

struct CompletionRequest {
  std::vector<engine::ResolvedRequest> prompts;  // at least one
  int choices_per_prompt = 1;                    // choice i of a prompt samples with its seed + i
  bool stream = false;                           // false: one chunk a choice, at its end
  bool detokenize = true;                        // false: no text; stop strings still work
  std::string tenant, cache_salt;
  int priority = 0;
  Slo slo;
  absl::Time received, deadline;
  absl::Duration tokenize;  // what the tokenising took

  int choice_count() const { return static_cast<int>(prompts.size()) * choices_per_prompt; }
};

// One of its choices, as the cluster is asked for it.
GenerationRequest RequestOfChoice(const CompletionRequest& asked, int choice);

// What a choice has more of. All its chunks together are the whole answer.
struct CompletionChunk {
  int choice = 0;                            // prompt index * choices_per_prompt + i
  std::string text;                          // whole characters
  std::vector<engine::SampledToken> tokens;  // none behind the one that completes a stop string
  std::optional<FinishReason> finish;        // on the choice's last chunk
};

struct CompletionUsage {
  int prompt_tokens = 0;      // of each prompt once, however many choices it has
  int completion_tokens = 0;  // of all choices
  int cached_tokens = 0;      // of each prompt, as its first choice found it
  absl::Duration tokenize;
  GenerationReport first;  // of choice 0
};

// Whoever asked. May destroy the Completion inside a callback; then hears no more.
class CompletionListener {
 public:
  virtual ~CompletionListener() = default;
  virtual void OnChunk(CompletionChunk chunk) = 0;
  // The end, once. Not OK: one choice failed, and with it all; RetryAfter(status) may have a hint.
  // `usage` is of an OK end.
  virtual void OnEnd(const absl::Status& status, const CompletionUsage& usage) = 0;
};

// Destroying it cancels every choice that still runs.
class Completion {
 public:
  // Starts all choices; callbacks come later than this call. What the arguments point to outlives
  // the Completion. DEADLINE_EXCEEDED is told when `request.deadline` passes.
  static absl::StatusOr<std::unique_ptr<Completion>> Start(
      EventLoop* loop, Gateway* gateway, std::shared_ptr<const engine::TextModel> model,
      CompletionRequest request, CompletionListener* listener);
  ~Completion();
  Completion(const Completion&) = delete;
  Completion& operator=(const Completion&) = delete;

 private:
  class Choice;

  Completion(EventLoop* loop, std::shared_ptr<const engine::TextModel> model,
             CompletionRequest request, CompletionListener* listener);
  void Begin(Gateway* gateway);
  // Passes the chunk on; ends the completion behind the last choice's last chunk. May destroy this.
  void Deliver(CompletionChunk chunk);
  void End(const absl::Status& status);
  CompletionUsage Usage() const;

  EventLoop* const loop_;
  const std::shared_ptr<const engine::TextModel> model_;
  const CompletionRequest request_;
  CompletionListener* const listener_;
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::vector<std::unique_ptr<Choice>> choices_;
  int running_ = 0;
  TimerId deadline_ = 0;
};

}  // namespace tarn::router
