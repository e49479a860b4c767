#include <condition_variable>
#include <fstream>
#include <iostream>
#include <mutex>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/cli/batch.h"
#include "client/cli/commands.h"
#include "client/lib/client.h"
#include "common/base/status.h"

namespace tarn::client {
namespace {

// Puts the chunks of one answer together.
class Collector {
 public:
  explicit Collector(BatchAnswer* answer) : answer_(answer), start_(absl::Now()) {}

  void OnChunk(const v1::GenerateResponse& chunk) {
    if (chunk.token_ids_size() > 0 && answer_->token_ids.empty()) {
      answer_->ttft_ms = absl::ToDoubleMilliseconds(absl::Now() - start_);
    }
    answer_->token_ids.insert(answer_->token_ids.end(), chunk.token_ids().begin(),
                              chunk.token_ids().end());
    answer_->text += chunk.text();
    if (chunk.finish_reason() != 0) answer_->finish_reason = chunk.finish_reason();
    if (chunk.has_usage()) answer_->usage = chunk.usage();
  }
  void OnDone(const absl::Status& status) {
    answer_->status = status;
    answer_->total_ms = absl::ToDoubleMilliseconds(absl::Now() - start_);
  }

 private:
  BatchAnswer* const answer_;
  const absl::Time start_;
};

// Sends all requests, `concurrency` at a time.
std::vector<BatchAnswer> SendAll(Client& client, const std::vector<v1::GenerateRequest>& requests,
                                 int concurrency) {
  std::vector<BatchAnswer> answers(requests.size());
  std::vector<std::unique_ptr<Collector>> collectors(requests.size());
  std::mutex mutex;
  std::condition_variable changed;
  int running = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return running < concurrency; });
    ++running;
    lock.unlock();
    collectors[i] = std::make_unique<Collector>(&answers[i]);
    Collector* collector = collectors[i].get();
    client.Start(
        requests[i],
        [collector](const v1::GenerateResponse& chunk) {
          collector->OnChunk(chunk);
          return true;
        },
        [&, collector](const absl::Status& status) {
          collector->OnDone(status);
          // Under the lock: the waiter owns `changed` and may go as soon as it sees the count.
          const std::lock_guard<std::mutex> guard(mutex);
          --running;
          changed.notify_all();
        });
  }
  std::unique_lock<std::mutex> lock(mutex);
  changed.wait(lock, [&] { return running == 0; });
  return answers;
}

class Generate : public Command {
 public:
  explicit Generate(CommandLine& flags) : sampling_(flags) {
    AddServerFlag(flags, server_);
    flags.AddPositional("PROMPT", prompt_, "The prompt");
    flags.Add("--prompt-file", prompt_file_, "The prompt's file; - is stdin");
    flags.Add("--input", input_, "A file of requests, one JSON object a line; - is stdin");
    flags.Add("--output", output_, "Where --input's answers go, one a line");
    flags.Add("--concurrency", concurrency_, "Requests of --input under way at once", {1, 4096});
    flags.Add("--no-stream", no_stream_, "One message at the end, not one a token");
    flags.Add("--usage", usage_, "Also print tokens and times");
    flags.Add("--model", model_, "Model, where there are several");
    flags.Add("--tenant", tenant_, "Whose blocks may be shared");
    flags.Add("--service-tier", service_tier_, "Class of the request, as the router knows it");
  }

  int Run() override {
    const absl::Status status = input_.empty() ? One() : Many();
    return status.ok() ? 0 : Fail(status);
  }

 private:
  void Fill(v1::RequestOptions& options) const {
    options.set_stream(!no_stream_);
    if (!model_.empty()) options.set_model(model_);
    if (!tenant_.empty()) options.set_tenant(tenant_);
    if (!service_tier_.empty()) options.set_service_tier(service_tier_);
  }

  absl::Status One() {
    v1::GenerateRequest request;
    *request.mutable_options()->mutable_sampling() = sampling_.ToProto();
    Fill(*request.mutable_options());
    request.set_text(prompt_);
    if (!prompt_file_.empty()) {
      ASSIGN_OR_RETURN(*request.mutable_text(), ReadInput(prompt_file_));
    }
    BatchAnswer answer;
    Collector collector(&answer);
    Client client(server_);
    collector.OnDone(client.Generate(request, [&](const v1::GenerateResponse& chunk) {
      collector.OnChunk(chunk);
      std::cout << chunk.text() << std::flush;
      return true;
    }));
    RETURN_IF_ERROR(answer.status);
    std::cout << std::endl;
    if (usage_) PrintUsage(answer);
    return absl::OkStatus();
  }

  static void PrintUsage(const BatchAnswer& answer) {
    const v1::Usage& usage = answer.usage;
    std::cout << absl::StreamFormat(
        "TTFT %.1f ms, total %.1f ms; %d prompt tokens, %d of them cached; %d new tokens; %s -> "
        "%s\n",
        answer.ttft_ms, answer.total_ms, usage.prompt_tokens(), usage.cached_tokens(),
        usage.completion_tokens(), usage.prefill_node(),
        usage.decode_node().empty() ? "-" : usage.decode_node());
  }

  absl::Status Many() {
    ASSIGN_OR_RETURN(const std::string text, ReadInput(input_));
    ASSIGN_OR_RETURN(auto requests, ParseRequests(text, sampling_.ToProto()));
    for (v1::GenerateRequest& request : requests) Fill(*request.mutable_options());
    Client client(server_);
    const std::vector<BatchAnswer> answers = SendAll(client, requests, concurrency_);
    std::ofstream file;
    if (!output_.empty()) file.open(output_);
    std::ostream& out = output_.empty() ? std::cout : file;
    int failed = 0;
    for (size_t i = 0; i < answers.size(); ++i) {
      out << AnswerJson(i, answers[i]) << '\n';
      failed += !answers[i].status.ok();
    }
    out.flush();
    if (!out) return absl::UnavailableError(output_ + ": cannot be written");
    if (failed > 0) {
      return absl::UnknownError(absl::StrFormat("%d of %d requests failed; see the output's errors",
                                                failed, answers.size()));
    }
    return absl::OkStatus();
  }

  SamplingFlags sampling_;
  std::string server_ = "127.0.0.1:9000";
  std::string prompt_, prompt_file_, input_, output_, model_, tenant_, service_tier_;
  int concurrency_ = 1;
  bool no_stream_ = false, usage_ = false;
};

}  // namespace

std::unique_ptr<Command> MakeGenerate(CommandLine& flags) {
  return std::make_unique<Generate>(flags);
}

}  // namespace tarn::client
