#include <sys/mman.h>

#include <fstream>
#include <iostream>
#include <memory>

#include "absl/time/clock.h"
#include "client/cli/batch.h"
#include "client/cli/commands.h"
#include "client/local/local_generator.h"
#include "common/base/status.h"
#include "engine/factory/model_factory.h"
#include "engine/factory/model_flags.h"
#include "engine/request/answer_text.h"
#include "engine/request/resolve.h"

namespace tarn::client {
namespace {

// Anonymous memory for KV pages: zero pages cost nothing until they are written.
class Pages {
 public:
  explicit Pages(size_t bytes)
      : bytes_(bytes),
        base_(mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
  ~Pages() {
    if (ok()) munmap(base_, bytes_);
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  bool ok() const { return base_ != MAP_FAILED; }
  std::byte* base() const { return static_cast<std::byte*>(base_); }

 private:
  const size_t bytes_;
  void* const base_;
};

// The request's prompt as tokens.
absl::StatusOr<std::vector<TokenId>> PromptOf(const v1::GenerateRequest& request,
                                              const engine::TextModel& model) {
  if (request.prompt_case() == v1::GenerateRequest::kTokens) {
    return std::vector<TokenId>(request.tokens().ids().begin(), request.tokens().ids().end());
  }
  return engine::EncodePrompt(request.text(), model);
}

class RunCommand : public Command {
 public:
  explicit RunCommand(CommandLine& flags) : sampling_(flags) {
    engine::AddModelFlags(flags, options_);
    flags.AddPositional("PROMPT", prompt_, "The prompt");
    flags.Add("--input", input_, "A file of requests, one JSON object a line; - is stdin");
    flags.Add("--output", output_, "Where --input's answers go, one a line");
    flags.Add("--chunk-tokens", chunk_tokens_, "Prompt tokens computed at a time", {1, 1 << 20});
  }

  int Run() override {
    const absl::Status status = Load();
    if (!status.ok()) return Fail(status);
    const absl::Status ran = input_.empty() ? One() : Many();
    return ran.ok() ? 0 : Fail(ran);
  }

 private:
  absl::Status Load() {
    ASSIGN_OR_RETURN(text_, engine::TextModel::Load(options_.model, options_.served_name));
    ASSIGN_OR_RETURN(model_, engine::OpenModel(options_));
    const BlockLayout& layout = model_->layout();
    // One request of the longest kind.
    const int pages = (model_->info().max_context + layout.block_tokens - 1) / layout.block_tokens;
    pages_ = std::make_unique<Pages>(pages * layout.page_bytes());
    if (!pages_->ok()) return absl::ResourceExhaustedError("no address space for KV pages");
    ASSIGN_OR_RETURN(executor_, model_->MakeExecutor({pages_->base(), pages}));
    generator_ = std::make_unique<LocalGenerator>(executor_.get(), pages, chunk_tokens_);
    return absl::OkStatus();
  }

  // Runs one request; `on_text` gets the text as it comes.
  BatchAnswer Answer(const v1::GenerateRequest& request,
                     const std::function<void(const std::string&)>& on_text) {
    BatchAnswer answer;
    answer.status = Fill(request, on_text, answer);
    return answer;
  }

  absl::Status Fill(const v1::GenerateRequest& proto,
                    const std::function<void(const std::string&)>& on_text, BatchAnswer& answer) {
    const absl::Time start = absl::Now();
    ASSIGN_OR_RETURN(std::vector<TokenId> prompt, PromptOf(proto, text_));
    ASSIGN_OR_RETURN(
        const engine::ResolvedRequest request,
        engine::Resolve(std::move(prompt), proto.options().sampling(), text_, /*drawn_seed=*/0));
    ASSIGN_OR_RETURN(engine::AnswerText text,
                     engine::AnswerText::Create(request, *text_.tokenizer));
    const auto emit = [&](const std::string& piece) {
      answer.text += piece;
      on_text(piece);
    };
    const LocalRequest local{request.prompt, request.sampling, request.end_tokens,
                             request.max_new_tokens};
    ASSIGN_OR_RETURN(const LocalFinish finish,
                     generator_->Generate(local, [&](const engine::SampledToken& token) {
                       if (answer.token_ids.empty()) {
                         answer.ttft_ms = absl::ToDoubleMilliseconds(absl::Now() - start);
                       }
                       answer.token_ids.push_back(token.token);
                       emit(text.Push(token.token));
                       return !text.stopped();
                     }));
    emit(text.Flush());
    answer.finish_reason =
        finish == LocalFinish::kLength ? v1::FINISH_REASON_LENGTH : v1::FINISH_REASON_STOP;
    answer.usage.set_prompt_tokens(static_cast<uint32_t>(request.prompt.size()));
    answer.usage.set_completion_tokens(static_cast<uint32_t>(answer.token_ids.size()));
    answer.total_ms = absl::ToDoubleMilliseconds(absl::Now() - start);
    return absl::OkStatus();
  }

  absl::Status One() {
    v1::GenerateRequest request;
    *request.mutable_options()->mutable_sampling() = sampling_.ToProto();
    request.set_text(prompt_);
    const BatchAnswer answer =
        Answer(request, [](const std::string& piece) { std::cout << piece << std::flush; });
    RETURN_IF_ERROR(answer.status);
    std::cout << std::endl;
    return absl::OkStatus();
  }

  absl::Status Many() {
    ASSIGN_OR_RETURN(const std::string text, ReadInput(input_));
    ASSIGN_OR_RETURN(const auto requests, ParseRequests(text, sampling_.ToProto()));
    std::ofstream file;
    if (!output_.empty()) file.open(output_);
    std::ostream& out = output_.empty() ? std::cout : file;
    for (size_t i = 0; i < requests.size(); ++i) {
      out << AnswerJson(i, Answer(requests[i], [](const std::string&) {})) << std::endl;
      if (!out) return absl::UnavailableError(output_ + ": cannot be written");
    }
    return absl::OkStatus();
  }

  SamplingFlags sampling_;
  engine::ModelOptions options_;
  std::string prompt_, input_, output_;
  int chunk_tokens_ = 512;
  engine::TextModel text_;
  std::unique_ptr<engine::OpenedModel> model_;
  std::unique_ptr<Pages> pages_;
  std::unique_ptr<engine::ModelExecutor> executor_;
  std::unique_ptr<LocalGenerator> generator_;
};

}  // namespace

std::unique_ptr<Command> MakeRun(CommandLine& flags) { return std::make_unique<RunCommand>(flags); }

}  // namespace tarn::client
