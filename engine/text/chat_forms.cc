#include "engine/text/chat_forms.h"

#include "absl/strings/str_cat.h"

namespace tarn::engine {
namespace {

// The two expressions differ in how many digits make a pretoken.
std::string SplitPatternWithNumbers(const char* numbers) {
  return absl::StrCat(R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)", numbers,
                      R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)");
}

constexpr char kChatMlJinja[] =
    R"({%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\n' -}}
{%- endif -%})";

constexpr char kLlama3Jinja[] =
    R"({{- '<|begin_of_text|>' -}}
{%- for message in messages -%}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>' + '\n\n' -}}
{{- message['content'] | trim -}}
{{- '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>' + '\n\n' -}}
{%- endif -%})";

}  // namespace

std::string SplitPattern(ChatForm form) {
  return SplitPatternWithNumbers(form == ChatForm::kChatMl ? R"(\p{N})" : R"(\p{N}{1,3})");
}

std::vector<std::string> SpecialTokens(ChatForm form) {
  if (form == ChatForm::kChatMl) return {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
  return {"<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
          "<|eot_id|>"};
}

std::string EosToken(ChatForm form) {
  return form == ChatForm::kChatMl ? "<|im_end|>" : "<|eot_id|>";
}

std::string PadToken(ChatForm form) {
  return form == ChatForm::kChatMl ? "<|endoftext|>" : "<|end_of_text|>";
}

std::string BosToken(ChatForm form) { return form == ChatForm::kChatMl ? "" : "<|begin_of_text|>"; }

bool UsesNfc(ChatForm form) { return form == ChatForm::kChatMl; }

bool IgnoresMerges(ChatForm form) { return form == ChatForm::kLlama3; }

std::string JinjaTemplate(ChatForm form) {
  return form == ChatForm::kChatMl ? kChatMlJinja : kLlama3Jinja;
}

}  // namespace tarn::engine
