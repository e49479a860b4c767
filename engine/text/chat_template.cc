#include "engine/text/chat_template.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "engine/text/unicode.h"

namespace tarn::engine {
namespace {

using nlohmann::json;

constexpr char kThink[] = "<think>";
constexpr char kEndThink[] = "</think>";

bool Has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

std::string_view StripNewlines(std::string_view text, bool front, bool back) {
  while (front && text.starts_with('\n')) text.remove_prefix(1);
  while (back && text.ends_with('\n')) text.remove_suffix(1);
  return text;
}

std::optional<std::string> ReadIfPresent(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  std::ostringstream contents;
  contents << file.rdbuf();
  return std::move(contents).str();
}

// The template's text in tokenizer_config.json; nothing if it has none.
std::optional<std::string> TemplateOfConfig(const std::string& config_json) {
  const json config = json::parse(config_json, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object() || !config.contains("chat_template")) return std::nullopt;
  const json& value = config["chat_template"];
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return std::nullopt;
  for (const json& named : value) {
    if (!named.is_object() || !named.contains("name") || !named.contains("template")) continue;
    if (named["name"] == "default" && named["template"].is_string()) {
      return named["template"].get<std::string>();
    }
  }
  return std::nullopt;
}

// Qwen2's templates hold a whole system turn as one literal, for conversations without one. The
// literal's newline is the two characters "\n". Where the text is put together from parts, the
// literal ends (by its quote) before <|im_end|>.
std::string DefaultSystem(std::string_view jinja) {
  constexpr std::string_view kBegin = "<|im_start|>system\\n";
  for (size_t at = jinja.find(kBegin); at != std::string_view::npos; at = jinja.find(kBegin, at)) {
    at += kBegin.size();
    const std::string_view rest = jinja.substr(at);
    const std::string_view text = rest.substr(0, rest.find("<|im_end|>"));
    if (text.size() < rest.size() && text.find_first_of("'\"{}\\") == std::string_view::npos) {
      return std::string(text);
    }
  }
  return "";
}

// An assistant's message, taken apart as Qwen3's template does it.
struct Answer {
  std::string_view reasoning;
  std::string_view content;
};

Answer TakeApart(std::string_view content) {
  const size_t first_end = content.find(kEndThink);
  if (first_end == std::string_view::npos) return {"", content};
  std::string_view reasoning = StripNewlines(content.substr(0, first_end), false, true);
  if (const size_t begin = reasoning.rfind(kThink); begin != std::string_view::npos) {
    reasoning.remove_prefix(begin + std::string_view(kThink).size());
  }
  const size_t last_end = content.rfind(kEndThink) + std::string_view(kEndThink).size();
  return {StripNewlines(reasoning, true, false),
          StripNewlines(content.substr(last_end), true, false)};
}

// The index of the last message in which a user asks, and not a tool's result in its place.
size_t LastQuery(std::span<const ChatMessage> messages) {
  for (size_t i = messages.size(); i-- > 0;) {
    const std::string_view content = messages[i].content;
    const bool is_tool_result =
        content.starts_with("<tool_response>") && content.ends_with("</tool_response>");
    if (messages[i].role == "user" && !is_tool_result) return i;
  }
  return messages.size() - 1;
}

}  // namespace

// A rendering in progress: special tokens, and the plain text between them. Neighbouring text is
// joined before it is encoded, because pretokens may reach over the seam (a role's newline and a
// content that begins with one).
class ChatTemplate::Script {
 public:
  struct Part {
    std::string text;
    bool is_marker = false;
  };

  void Marker(std::string_view name) { parts_.push_back({std::string(name), true}); }
  void Text(std::string_view text) {
    if (text.empty()) return;
    if (parts_.empty() || parts_.back().is_marker) parts_.push_back({});
    parts_.back().text.append(text);
  }
  const std::vector<Part>& parts() const { return parts_; }

 private:
  std::vector<Part> parts_;
};

absl::StatusOr<ChatTemplate> ChatTemplate::Load(const std::string& directory,
                                                std::shared_ptr<const Tokenizer> tokenizer) {
  std::optional<std::string> jinja = ReadIfPresent(directory + "/chat_template.jinja");
  if (!jinja) {
    const auto config = ReadIfPresent(directory + "/tokenizer_config.json");
    if (config) jinja = TemplateOfConfig(*config);
  }
  if (!jinja) {
    return absl::NotFoundError(absl::StrCat(directory,
                                            ": no chat template (chat_template.jinja, or "
                                            "chat_template in tokenizer_config.json)"));
  }
  return FromText(*jinja, std::move(tokenizer));
}

absl::StatusOr<ChatTemplate> ChatTemplate::FromText(std::string_view jinja,
                                                    std::shared_ptr<const Tokenizer> tokenizer) {
  ChatTemplate chat;
  std::vector<const char*> markers;
  if (Has(jinja, "<|im_start|>") && Has(jinja, "<|im_end|>")) {
    chat.form_ = ChatForm::kChatMl;
    chat.default_system_ = DefaultSystem(jinja);
    chat.has_thinking_ = Has(jinja, "enable_thinking");
    markers = {"<|im_start|>", "<|im_end|>"};
  } else if (Has(jinja, "<|start_header_id|>") && Has(jinja, "<|eot_id|>")) {
    chat.form_ = ChatForm::kLlama3;
    chat.has_date_preamble_ = Has(jinja, "Cutting Knowledge Date");
    markers = {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"};
  } else {
    return absl::FailedPreconditionError(
        "chat template: neither ChatML (<|im_start|>, <|im_end|>) nor Llama 3 "
        "(<|start_header_id|>, <|eot_id|>); other forms are not supported");
  }
  for (const char* marker : markers) {
    const auto id = tokenizer->IdOf(marker);
    if (!id || !tokenizer->IsSpecial(*id)) {
      return absl::FailedPreconditionError(
          absl::StrCat("chat template: the tokenizer has no special token ", marker));
    }
    chat.end_of_turn_ = *id;  // The last of them ends a turn in both forms.
  }
  chat.tokenizer_ = std::move(tokenizer);
  return chat;
}

absl::Status ChatTemplate::CheckRoles(std::span<const ChatMessage> messages) const {
  if (messages.empty()) {
    return absl::InvalidArgumentError("messages is empty: a chat needs at least one message");
  }
  std::vector<std::string> roles = {"system", "user", "assistant"};
  if (form_ == ChatForm::kChatMl && has_thinking_) roles.push_back("tool");
  for (size_t i = 0; i < messages.size(); ++i) {
    if (std::find(roles.begin(), roles.end(), messages[i].role) != roles.end()) continue;
    std::string known;
    for (const std::string& role : roles) absl::StrAppend(&known, known.empty() ? "" : ", ", role);
    return absl::InvalidArgumentError(absl::StrCat("messages[", i, "].role is \"", messages[i].role,
                                                   "\"; this model knows ", known));
  }
  return absl::OkStatus();
}

void ChatTemplate::WriteThinking(std::string_view reasoning, Script& script) const {
  const auto tag = [&](const char* name) {
    tokenizer_->IdOf(name) ? script.Marker(name) : script.Text(name);
  };
  tag(kThink);
  script.Text("\n");
  script.Text(reasoning);
  script.Text("\n");
  tag(kEndThink);
  script.Text("\n\n");
}

void ChatTemplate::WriteAnswer(const ChatMessage& message, bool is_new, bool is_last,
                               Script& script) const {
  Answer answer = TakeApart(message.content);
  if (is_new && (is_last || !answer.reasoning.empty())) {
    WriteThinking(StripNewlines(answer.reasoning, true, true), script);
    answer.content = StripNewlines(answer.content, true, false);
  }
  script.Text(answer.content);
}

void ChatTemplate::WriteChatMl(std::span<const ChatMessage> messages,
                               const ChatRenderOptions& options, Script& script) const {
  const auto begin = [&](std::string_view role) {
    script.Marker("<|im_start|>");
    script.Text(role);
    script.Text("\n");
  };
  const auto end = [&] {
    script.Marker("<|im_end|>");
    script.Text("\n");
  };
  if (!default_system_.empty() && messages[0].role != "system") {
    begin("system");
    script.Text(default_system_);
    end();
  }
  const size_t last_query = LastQuery(messages);
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    const bool last = i + 1 == messages.size();
    if (message.role == "tool") {
      // Results in a row make one turn of the user.
      const bool first_of_row = i == 0 || messages[i - 1].role != "tool";
      first_of_row ? begin("user") : script.Text("\n");
      script.Text("<tool_response>\n" + message.content + "\n</tool_response>");
      if (last || messages[i + 1].role != "tool") end();
      continue;
    }
    begin(message.role);
    if (has_thinking_ && message.role == "assistant") {
      WriteAnswer(message, i > last_query, last, script);
    } else {
      script.Text(message.content);
    }
    end();
  }
  if (!options.add_generation_prompt) return;
  begin("assistant");
  if (has_thinking_ && !options.enable_thinking) WriteThinking("", script);
}

void ChatTemplate::WriteLlama3(std::span<const ChatMessage> messages,
                               const ChatRenderOptions& options, Script& script) const {
  const auto begin = [&](std::string_view role) {
    script.Marker("<|start_header_id|>");
    script.Text(role);
    script.Marker("<|end_header_id|>");
    script.Text("\n\n");
  };
  script.Marker("<|begin_of_text|>");
  if (has_date_preamble_) {
    begin("system");
    script.Text("Cutting Knowledge Date: December 2023\nToday Date: " + options.date + "\n\n");
    if (messages[0].role == "system") {
      script.Text(StripSpace(messages[0].content));
      messages = messages.subspan(1);
    }
    script.Marker("<|eot_id|>");
  }
  for (const ChatMessage& message : messages) {
    begin(message.role);
    script.Text(StripSpace(message.content));
    script.Marker("<|eot_id|>");
  }
  if (options.add_generation_prompt) begin("assistant");
}

absl::StatusOr<ChatTemplate::Script> ChatTemplate::Write(std::span<const ChatMessage> messages,
                                                         const ChatRenderOptions& options) const {
  RETURN_IF_ERROR(CheckRoles(messages));
  Script script;
  if (form_ == ChatForm::kChatMl) {
    WriteChatMl(messages, options, script);
  } else {
    WriteLlama3(messages, options, script);
  }
  return script;
}

absl::StatusOr<std::vector<TokenId>> ChatTemplate::Render(std::span<const ChatMessage> messages,
                                                          const ChatRenderOptions& options) const {
  ASSIGN_OR_RETURN(const Script script, Write(messages, options));
  std::vector<TokenId> tokens;
  for (const auto& part : script.parts()) {
    if (part.is_marker) {
      tokens.push_back(tokenizer_->IdOf(part.text).value());
      continue;
    }
    const auto text = tokenizer_->Encode(part.text, {.add_special_tokens = false});
    tokens.insert(tokens.end(), text.begin(), text.end());
  }
  return tokens;
}

absl::StatusOr<std::string> ChatTemplate::RenderText(std::span<const ChatMessage> messages,
                                                     const ChatRenderOptions& options) const {
  ASSIGN_OR_RETURN(const Script script, Write(messages, options));
  std::string text;
  for (const auto& part : script.parts()) text.append(part.text);
  return text;
}

}  // namespace tarn::engine
