#include "engine/text/tokenizer_file.h"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace tarn::engine {
namespace {

using nlohmann::json;

// GPT-2's expression: what ByteLevel splits by when the file gives no pattern of its own.
constexpr char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

absl::Status Malformed(const std::string& field, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("tokenizer file: ", field, " ", what));
}

absl::Status Unsupported(const std::string& field, const std::string& what) {
  return absl::FailedPreconditionError(absl::StrCat(
      "tokenizer file: ", field, " ", what,
      " is not supported (only byte-level BPE, as Qwen 2/3, Llama 3 and GPT-2 use it)"));
}

// The member, or null: absent and null mean the same in these files.
const json& Member(const json& object, const char* name) {
  static const json null;
  if (!object.is_object()) return null;
  const auto it = object.find(name);
  return it == object.end() ? null : *it;
}

absl::StatusOr<bool> Flag(const json& object, const std::string& field, const char* name,
                          bool otherwise) {
  const json& value = Member(object, name);
  if (value.is_null()) return otherwise;
  if (!value.is_boolean()) return Malformed(field + "." + name, "is not true or false");
  return value.get<bool>();
}

absl::StatusOr<std::string> Text(const json& object, const std::string& field, const char* name) {
  const json& value = Member(object, name);
  if (!value.is_string()) return Malformed(field + "." + name, "is not a string");
  return value.get<std::string>();
}

absl::StatusOr<TokenId> Id(const json& value, const std::string& field) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() >= kMaxTokenIds) {
    return Malformed(field, absl::StrCat("is not an id from 0 to ", kMaxTokenIds - 1));
  }
  return value.get<TokenId>();
}

// The components of a Sequence in `list`, or the one component itself; null has none.
absl::StatusOr<std::vector<const json*>> Components(const json& component, const std::string& field,
                                                    const char* list) {
  std::vector<const json*> parts;
  if (component.is_null()) return parts;
  ASSIGN_OR_RETURN(const std::string type, Text(component, field, "type"));
  if (type != "Sequence") return std::vector<const json*>{&component};
  const json& members = Member(component, list);
  if (!members.is_array()) return Malformed(field + "." + list, "is not a list");
  for (const json& member : members) parts.push_back(&member);
  return parts;
}

absl::Status ReadNormalizer(const json& root, TokenizerSpec& spec) {
  const std::string field = "normalizer";
  ASSIGN_OR_RETURN(const auto parts, Components(Member(root, "normalizer"), field, "normalizers"));
  for (const json* part : parts) {
    ASSIGN_OR_RETURN(const std::string type, Text(*part, field, "type"));
    if (type != "NFC") return Unsupported(field, type);
    spec.nfc = true;
  }
  return absl::OkStatus();
}

absl::Status ReadSplit(const json& split, const std::string& field, TokenizerSpec& spec) {
  const json& pattern = Member(split, "pattern");
  if (!Member(pattern, "String").is_null()) return Unsupported(field, "Split by a String pattern");
  ASSIGN_OR_RETURN(std::string regex, Text(pattern, field + ".pattern", "Regex"));
  ASSIGN_OR_RETURN(const std::string behavior, Text(split, field, "behavior"));
  if (behavior != "Isolated") return Unsupported(field, "Split with behavior " + behavior);
  ASSIGN_OR_RETURN(const bool invert, Flag(split, field, "invert", false));
  if (invert) return Unsupported(field, "Split with invert");
  spec.split_patterns.push_back(std::move(regex));
  return absl::OkStatus();
}

absl::Status ReadByteLevelSplit(const json& byte_level, const std::string& field,
                                TokenizerSpec& spec) {
  ASSIGN_OR_RETURN(const bool prefix_space, Flag(byte_level, field, "add_prefix_space", true));
  if (prefix_space) return Unsupported(field, "ByteLevel with add_prefix_space");
  ASSIGN_OR_RETURN(const bool use_regex, Flag(byte_level, field, "use_regex", true));
  if (use_regex) spec.split_patterns.push_back(kGpt2Pattern);
  return absl::OkStatus();
}

absl::Status ReadPreTokenizer(const json& root, TokenizerSpec& spec) {
  const std::string field = "pre_tokenizer";
  ASSIGN_OR_RETURN(const auto parts,
                   Components(Member(root, "pre_tokenizer"), field, "pretokenizers"));
  bool byte_level = false;
  for (const json* part : parts) {
    ASSIGN_OR_RETURN(const std::string type, Text(*part, field, "type"));
    if (byte_level) return Unsupported(field, type + " after ByteLevel");
    if (type == "Split") {
      RETURN_IF_ERROR(ReadSplit(*part, field, spec));
    } else if (type == "ByteLevel") {
      byte_level = true;
      RETURN_IF_ERROR(ReadByteLevelSplit(*part, field, spec));
    } else {
      return Unsupported(field, type);
    }
  }
  if (!byte_level) return Unsupported(field, "without ByteLevel");
  return absl::OkStatus();
}

absl::Status ReadDecoder(const json& root) {
  const std::string field = "decoder";
  ASSIGN_OR_RETURN(const auto parts, Components(Member(root, "decoder"), field, "decoders"));
  if (parts.size() != 1) return Unsupported(field, "other than one ByteLevel");
  ASSIGN_OR_RETURN(const std::string type, Text(*parts[0], field, "type"));
  if (type != "ByteLevel") return Unsupported(field, type);
  return absl::OkStatus();
}

// Appends the ids of a template's special token to `ids`.
absl::Status ReadTemplateToken(const json& processor, const json& item, std::vector<TokenId>& ids) {
  const std::string field = "post_processor.special_tokens";
  ASSIGN_OR_RETURN(const std::string name, Text(item, "post_processor.single", "id"));
  const json& list = Member(Member(Member(processor, "special_tokens"), name.c_str()), "ids");
  if (!list.is_array()) return Malformed(field, absl::StrCat("has no ids for \"", name, "\""));
  for (const json& value : list) {
    ASSIGN_OR_RETURN(const TokenId id, Id(value, absl::StrCat(field, "[\"", name, "\"].ids")));
    ids.push_back(id);
  }
  return absl::OkStatus();
}

absl::Status ReadTemplate(const json& processor, TokenizerSpec& spec) {
  const std::string field = "post_processor.single";
  const json& items = Member(processor, "single");
  if (!items.is_array()) return Malformed(field, "is not a list");
  bool text_seen = false;
  for (const json& item : items) {
    if (const json& token = Member(item, "SpecialToken"); !token.is_null()) {
      RETURN_IF_ERROR(ReadTemplateToken(processor, token, text_seen ? spec.suffix : spec.prefix));
    } else if (Member(Member(item, "Sequence"), "id") == "A" && !text_seen) {
      text_seen = true;
    } else {
      return Malformed(field, "has an item that is neither a SpecialToken nor the one Sequence A");
    }
  }
  if (!text_seen) return Malformed(field, "has no Sequence A");
  return absl::OkStatus();
}

absl::Status ReadPostProcessor(const json& root, TokenizerSpec& spec) {
  const std::string field = "post_processor";
  ASSIGN_OR_RETURN(const auto parts,
                   Components(Member(root, "post_processor"), field, "processors"));
  bool has_template = false;
  for (const json* part : parts) {
    ASSIGN_OR_RETURN(const std::string type, Text(*part, field, "type"));
    if (type == "ByteLevel") continue;  // Moves offsets only.
    if (type != "TemplateProcessing") return Unsupported(field, type);
    if (has_template) return Unsupported(field, "with two TemplateProcessing");
    has_template = true;
    RETURN_IF_ERROR(ReadTemplate(*part, spec));
  }
  return absl::OkStatus();
}

absl::Status ReadVocab(const json& model, TokenizerSpec& spec) {
  const json& vocab = Member(model, "vocab");
  if (!vocab.is_object()) return Malformed("model.vocab", "is not an object");
  spec.vocab.reserve(vocab.size());
  for (const auto& [spelled, value] : vocab.items()) {
    ASSIGN_OR_RETURN(const TokenId id, Id(value, absl::StrCat("model.vocab[\"", spelled, "\"]")));
    spec.vocab.emplace_back(spelled, id);
  }
  return absl::OkStatus();
}

std::optional<std::pair<std::string, std::string>> ParseMerge(const json& merge) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return std::pair(merge[0].get<std::string>(), merge[1].get<std::string>());
  }
  if (!merge.is_string()) return std::nullopt;
  const auto& text = merge.get_ref<const std::string&>();
  const size_t space = text.find(' ');
  if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
    return std::nullopt;
  }
  return std::pair(text.substr(0, space), text.substr(space + 1));
}

absl::Status ReadMerges(const json& model, TokenizerSpec& spec) {
  const json& merges = Member(model, "merges");
  if (!merges.is_array()) return Malformed("model.merges", "is not a list");
  spec.merges.reserve(merges.size());
  for (const json& merge : merges) {
    auto pair = ParseMerge(merge);
    if (!pair) {
      return Malformed(absl::StrCat("model.merges[", spec.merges.size(), "]"),
                       "is neither \"a b\" nor [\"a\", \"b\"]");
    }
    spec.merges.push_back(*std::move(pair));
  }
  return absl::OkStatus();
}

// Fields that would change the tokens. unk_token and fuse_unk do not: with all 256 bytes in the
// vocab nothing is unknown.
absl::Status RefuseModelOptions(const json& model) {
  const std::string field = "model";
  ASSIGN_OR_RETURN(const std::string type, Text(model, field, "type"));
  if (type != "BPE") return Unsupported("model.type", type);
  const json& dropout = Member(model, "dropout");
  if (!dropout.is_null() && dropout != 0) return Unsupported(field, "dropout");
  for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const json& affix = Member(model, name);
    if (!affix.is_null() && affix != "") return Unsupported(field, name);
  }
  ASSIGN_OR_RETURN(const bool byte_fallback, Flag(model, field, "byte_fallback", false));
  if (byte_fallback) return Unsupported(field, "byte_fallback");
  return absl::OkStatus();
}

absl::Status ReadModel(const json& root, TokenizerSpec& spec) {
  const json& model = Member(root, "model");
  if (!model.is_object()) return Malformed("model", "is not an object");
  RETURN_IF_ERROR(RefuseModelOptions(model));
  ASSIGN_OR_RETURN(spec.ignore_merges, Flag(model, "model", "ignore_merges", false));
  RETURN_IF_ERROR(ReadVocab(model, spec));
  return ReadMerges(model, spec);
}

absl::StatusOr<AddedToken> ReadAddedToken(const json& entry, const std::string& field) {
  AddedToken token;
  ASSIGN_OR_RETURN(token.id, Id(Member(entry, "id"), field + ".id"));
  ASSIGN_OR_RETURN(token.content, Text(entry, field, "content"));
  if (token.content.empty()) return Malformed(field + ".content", "is empty");
  ASSIGN_OR_RETURN(token.special, Flag(entry, field, "special", false));
  ASSIGN_OR_RETURN(token.single_word, Flag(entry, field, "single_word", false));
  ASSIGN_OR_RETURN(token.lstrip, Flag(entry, field, "lstrip", false));
  ASSIGN_OR_RETURN(token.rstrip, Flag(entry, field, "rstrip", false));
  ASSIGN_OR_RETURN(token.normalized, Flag(entry, field, "normalized", !token.special));
  return token;
}

absl::Status ReadAddedTokens(const json& root, TokenizerSpec& spec) {
  const json& entries = Member(root, "added_tokens");
  if (entries.is_null()) return absl::OkStatus();
  if (!entries.is_array()) return Malformed("added_tokens", "is not a list");
  for (const json& entry : entries) {
    ASSIGN_OR_RETURN(
        AddedToken token,
        ReadAddedToken(entry, absl::StrCat("added_tokens[", spec.added_tokens.size(), "]")));
    spec.added_tokens.push_back(std::move(token));
  }
  return absl::OkStatus();
}

// A token's name in tokenizer_config.json: a string, or an object with its content.
absl::StatusOr<std::string> TokenName(const json& config, const char* name) {
  const json& value = Member(config, name);
  if (value.is_null()) return std::string();
  if (value.is_string()) return value.get<std::string>();
  return Text(value, name, "content");
}

absl::Status ReadConfig(std::string_view config_json, TokenizerSpec& spec) {
  if (config_json.empty()) return absl::OkStatus();
  const json config = json::parse(config_json, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) return Malformed("tokenizer_config.json", "is not a JSON object");
  ASSIGN_OR_RETURN(spec.bos_token, TokenName(config, "bos_token"));
  ASSIGN_OR_RETURN(spec.eos_token, TokenName(config, "eos_token"));
  ASSIGN_OR_RETURN(spec.pad_token, TokenName(config, "pad_token"));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerSpec> ParseTokenizerFiles(std::string_view tokenizer_json,
                                                  std::string_view config_json) {
  const json root = json::parse(tokenizer_json, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return Malformed("tokenizer.json", "is not a JSON object");
  TokenizerSpec spec;
  RETURN_IF_ERROR(ReadNormalizer(root, spec));
  RETURN_IF_ERROR(ReadPreTokenizer(root, spec));
  RETURN_IF_ERROR(ReadPostProcessor(root, spec));
  RETURN_IF_ERROR(ReadDecoder(root));
  RETURN_IF_ERROR(ReadModel(root, spec));
  RETURN_IF_ERROR(ReadAddedTokens(root, spec));
  RETURN_IF_ERROR(ReadConfig(config_json, spec));
  return spec;
}

}  // namespace tarn::engine
