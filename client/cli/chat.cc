#include <unistd.h>

#include <iostream>

#include "client/cli/commands.h"
#include "client/lib/client.h"
#include "common/base/status.h"

namespace tarn::client {
namespace {

class Chat : public Command {
 public:
  explicit Chat(CommandLine& flags) : sampling_(flags) {
    AddServerFlag(flags, server_);
    flags.AddPositional("MESSAGE", message_, "Say this, print the answer and leave");
    flags.Add("--system", system_, "System message");
    flags.Add("--model", model_, "Model, where there are several");
  }

  int Run() override {
    v1::ChatRequest request;
    *request.mutable_options()->mutable_sampling() = sampling_.ToProto();
    request.mutable_options()->set_model(model_);
    request.mutable_options()->set_stream(true);
    if (!system_.empty()) Add(request, "system", system_);
    Client client(server_);
    if (!message_.empty()) return Turn(client, request, message_) ? 0 : 1;

    const bool terminal = isatty(STDIN_FILENO);
    if (terminal) std::cout << "An empty line or Ctrl-D ends the conversation.\n";
    std::string line;
    while (true) {
      if (terminal) std::cout << "> " << std::flush;
      if (!std::getline(std::cin, line) || line.empty()) return 0;
      if (!Turn(client, request, line)) return 1;
    }
  }

 private:
  static void Add(v1::ChatRequest& request, const std::string& role, const std::string& content) {
    v1::ChatMessage* message = request.add_messages();
    message->set_role(role);
    message->set_content(content);
  }

  // Says `text`, prints the answer, and keeps both for the next turn.
  bool Turn(Client& client, v1::ChatRequest& request, const std::string& text) {
    Add(request, "user", text);
    std::string answer;
    const absl::Status status = client.Chat(request, [&](const v1::GenerateResponse& chunk) {
      std::cout << chunk.text() << std::flush;
      answer += chunk.text();
      return true;
    });
    std::cout << std::endl;
    if (!status.ok()) return Fail(status) == 0;
    Add(request, "assistant", answer);
    return true;
  }

  SamplingFlags sampling_;
  std::string server_ = "127.0.0.1:9000";
  std::string message_, system_, model_;
};

}  // namespace

std::unique_ptr<Command> MakeChat(CommandLine& flags) { return std::make_unique<Chat>(flags); }

}  // namespace tarn::client
