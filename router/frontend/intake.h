#pragma once

// From what a client asked, in either protocol, to a CompletionRequest: everything is checked here,
// so that a request means the same to gRPC and to OpenAI clients.
//
// Thread-safe: works on the thread that the request came in on. CPU-bound (tokenising), no I/O.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/base/mutex.h"
#include "common/metrics/registry.h"
#include "common/runtime/random.h"
#include "engine/request/text_model.h"
#include "engine/text/chat_template.h"
#include "proto/inference.pb.h"
#include "router/frontend/completion.h"
#include "router/frontend/frontend.h"

namespace tarn::router {

class Intake {
 public:
  // `registry` outlives this; one Intake for a registry.
  Intake(const FrontendOptions& options, std::shared_ptr<const engine::TextModel> model,
         Random random, metrics::Registry& registry);

  const FrontendOptions& options() const { return options_; }
  const engine::TextModel& model() const { return *model_; }
  std::shared_ptr<const engine::TextModel> shared_model() const { return model_; }

  // NOT_FOUND unless the model of this name is served; an empty name means the only one.
  absl::Status CheckModel(const std::string& name) const;

  // All of the options that does not depend on the prompt, to refuse before tokenising. NOT_FOUND:
  // the model. INVALID_ARGUMENT names the field and its limits.
  absl::Status Check(const v1::RequestOptions& options) const;

  // The tokens of a text, or of a conversation.
  absl::StatusOr<std::vector<TokenId>> Encode(const std::string& text) const;
  absl::StatusOr<std::vector<TokenId>> Render(std::span<const engine::ChatMessage> messages,
                                              const engine::ChatRenderOptions& options) const;

  // `received`: when the request came, `tokenized`: now. Call after Check.
  absl::StatusOr<CompletionRequest> Accept(std::vector<std::vector<TokenId>> prompts,
                                           const v1::RequestOptions& options, absl::Time received,
                                           absl::Time tokenized);

  // "`prefix`-" and 24 hexadecimal digits.
  std::string DrawId(const std::string& prefix);

  // Tells the metrics how a request of `api` ended.
  void Count(const std::string& api, const absl::Status& status);

  // Of the request's class. INVALID_ARGUMENT names those there are.
  absl::StatusOr<Slo> SloOf(const v1::RequestOptions& options) const;

 private:
  uint64_t Draw();

  const FrontendOptions options_;
  const std::shared_ptr<const engine::TextModel> model_;
  metrics::Family<metrics::Counter>& requests_;
  metrics::Histogram& tokenize_seconds_;
  Mutex mutex_;
  Random random_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tarn::router
