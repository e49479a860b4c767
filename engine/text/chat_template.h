#pragma once

// A conversation as the model was trained to read it.
//
// Hugging Face directories carry a Jinja program for this. Running it would make a string in which
// a user's "<|im_end|>" is no different from ours. So the program is recognised, not run, and its
// form is rendered straight to tokens: role markers are special tokens, and what a message says is
// plain text that cannot forge a turn. For content without special tokens the result equals that of
// the Jinja program.
//
// Forms:
//   ChatML   <|im_start|>role\ncontent<|im_end|>\n. Qwen2 and 2.5 bring a default system message,
//   read
//            from the template. A template that knows `enable_thinking` (Qwen3) also drops the
//            reasoning of earlier answers and wraps tool results as Qwen3 does.
//   Llama 3  <|begin_of_text|>, then <|start_header_id|>role<|end_header_id|>\n\ncontent<|eot_id|>,
//            content stripped. Llama 3.1 and later begin with a system turn that names the
//            knowledge cutoff and ChatRenderOptions::date; it is rendered where the template has
//            it.
// Definitions of tools, and content that is not text, are not rendered.
//
// Immutable and thread-safe; only Load reads files.

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/tokenizer.h"

namespace tarn::engine {

enum class ChatForm { kChatMl, kLlama3 };

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"; ChatML with thinking also "tool"
  std::string content;
};

struct ChatRenderOptions {
  // Ends with the beginning of the assistant's turn.
  bool add_generation_prompt = true;
  // False: the answer begins behind an empty <think></think>. Only where the template has thinking.
  bool enable_thinking = true;
  // Llama 3.1's default; Llama 3.2's template takes the current day. "26 Jul 2024" style.
  std::string date = "26 Jul 2024";
};

class ChatTemplate {
 public:
  // From `directory`/chat_template.jinja, else from tokenizer_config.json's `chat_template` (a
  // string, or a list, of which the one named "default" is taken). NOT_FOUND: there is none.
  static absl::StatusOr<ChatTemplate> Load(const std::string& directory,
                                           std::shared_ptr<const Tokenizer> tokenizer);

  // FAILED_PRECONDITION: neither form, or `tokenizer` lacks one of the form's special tokens.
  static absl::StatusOr<ChatTemplate> FromText(std::string_view jinja,
                                               std::shared_ptr<const Tokenizer> tokenizer);

  // INVALID_ARGUMENT: no messages, or a role that the form does not know (names the index).
  absl::StatusOr<std::vector<TokenId>> Render(std::span<const ChatMessage> messages,
                                              const ChatRenderOptions& options = {}) const;

  // The same as a string, to show it to people.
  absl::StatusOr<std::string> RenderText(std::span<const ChatMessage> messages,
                                         const ChatRenderOptions& options = {}) const;

  ChatForm form() const { return form_; }
  bool has_thinking() const { return has_thinking_; }
  // What ends the assistant's turn: <|im_end|> or <|eot_id|>.
  TokenId end_of_turn() const { return end_of_turn_; }

 private:
  class Script;

  ChatTemplate() = default;
  absl::StatusOr<Script> Write(std::span<const ChatMessage> messages,
                               const ChatRenderOptions& options) const;
  absl::Status CheckRoles(std::span<const ChatMessage> messages) const;
  void WriteThinking(std::string_view reasoning, Script& script) const;
  void WriteAnswer(const ChatMessage& message, bool is_new, bool is_last, Script& script) const;
  void WriteChatMl(std::span<const ChatMessage> messages, const ChatRenderOptions& options,
                   Script& script) const;
  void WriteLlama3(std::span<const ChatMessage> messages, const ChatRenderOptions& options,
                   Script& script) const;

  std::shared_ptr<const Tokenizer> tokenizer_;
  ChatForm form_ = ChatForm::kChatMl;
  TokenId end_of_turn_ = 0;
  std::string default_system_;      // ChatML; empty: none
  bool has_thinking_ = false;       // ChatML
  bool has_date_preamble_ = false;  // Llama 3
};

}  // namespace tarn::engine
