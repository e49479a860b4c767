#include "engine/text/tokenizer.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "engine/text/byte_level.h"
#include "engine/text/unicode.h"
#include "engine/text/utf8.h"

namespace tarn::engine {
namespace {

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot open ", path));
  std::ostringstream contents;
  contents << file.rdbuf();
  if (!file || !contents) return absl::UnavailableError(absl::StrCat("cannot read ", path));
  return std::move(contents).str();
}

// Those added tokens that are looked for after normalisation, or those before.
std::vector<AddedToken> Select(const TokenizerSpec& spec, bool normalized) {
  std::vector<AddedToken> selected;
  for (AddedToken token : spec.added_tokens) {
    if (token.normalized != normalized) continue;
    if (normalized && spec.nfc) token.content = ToNfc(token.content);
    selected.push_back(std::move(token));
  }
  return selected;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& directory) {
  ASSIGN_OR_RETURN(const std::string tokenizer, ReadFile(directory + "/tokenizer.json"));
  auto config = ReadFile(directory + "/tokenizer_config.json");
  if (!config.ok() && !absl::IsNotFound(config.status())) return config.status();
  auto loaded = FromJson(tokenizer, config.ok() ? *config : "");
  if (!loaded.ok()) return Annotate(loaded.status(), directory);
  return loaded;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(std::string_view tokenizer_json,
                                                               std::string_view config_json) {
  ASSIGN_OR_RETURN(TokenizerSpec spec, ParseTokenizerFiles(tokenizer_json, config_json));
  RETURN_IF_ERROR(CheckIds(spec));
  ASSIGN_OR_RETURN(BpeModel model, BpeModel::Create(spec));
  std::vector<RegexSplitter> splitters;
  for (const std::string& pattern : spec.split_patterns) {
    auto splitter = RegexSplitter::Compile(pattern);
    if (!splitter.ok()) return Annotate(splitter.status(), "tokenizer file: pre_tokenizer");
    splitters.push_back(*std::move(splitter));
  }
  std::unique_ptr<Tokenizer> tokenizer(
      new Tokenizer(std::move(spec), std::move(model), std::move(splitters)));
  return tokenizer;
}

// Each id has one token, and each id that is used has a token at all.
absl::Status Tokenizer::CheckIds(const TokenizerSpec& spec) {
  absl::flat_hash_map<TokenId, std::string> names;
  const auto add = [&](TokenId id, const std::string& name) {
    const auto [at, is_new] = names.try_emplace(id, name);
    if (is_new || at->second == name) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("tokenizer file: id ", id, " is both \"",
                                                   at->second, "\" and \"", name, "\""));
  };
  for (const auto& [spelled, id] : spec.vocab) RETURN_IF_ERROR(add(id, spelled));
  for (const AddedToken& token : spec.added_tokens) RETURN_IF_ERROR(add(token.id, token.content));
  for (const auto* ids : {&spec.prefix, &spec.suffix}) {
    for (const TokenId id : *ids) {
      if (names.contains(id)) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer file: post_processor uses id ", id, ", which no token has"));
    }
  }
  return absl::OkStatus();
}

Tokenizer::Tokenizer(TokenizerSpec spec, BpeModel model, std::vector<RegexSplitter> splitters)
    : nfc_(spec.nfc),
      prefix_(spec.prefix),
      suffix_(spec.suffix),
      model_(std::move(model)),
      splitters_(std::move(splitters)),
      raw_added_(Select(spec, false)),
      normalized_added_(Select(spec, true)) {
  IndexTokens(spec);
  bos_ = IdOf(spec.bos_token);
  eos_ = IdOf(spec.eos_token);
  pad_ = IdOf(spec.pad_token);
}

void Tokenizer::IndexTokens(const TokenizerSpec& spec) {
  TokenId last = -1;
  for (const auto& [spelled, id] : spec.vocab) last = std::max(last, id);
  for (const AddedToken& token : spec.added_tokens) last = std::max(last, token.id);
  bytes_.resize(last + 1);
  special_.resize(last + 1);
  ids_.reserve(spec.vocab.size() + spec.added_tokens.size());
  for (const auto& [spelled, id] : spec.vocab) {
    // A vocab's entry outside the alphabet can only be there for its own text.
    bytes_[id] = UnspellBytes(spelled).value_or(spelled);
    ids_.emplace(spelled, id);
  }
  for (const AddedToken& token : spec.added_tokens) {
    bytes_[token.id] = token.content;
    special_[token.id] = token.special;
    ids_.insert_or_assign(token.content, token.id);
  }
}

std::vector<TokenId> Tokenizer::Encode(std::string_view text, EncodeOptions options) const {
  std::vector<TokenId> tokens;
  tokens.reserve(text.size() / 4 + prefix_.size() + suffix_.size());
  if (options.add_special_tokens) tokens = prefix_;
  for (const TextPiece& piece : raw_added_.Split(text, options.parse_special)) {
    if (piece.token) {
      tokens.push_back(*piece.token);
    } else {
      EncodeText(piece.text, options.parse_special, tokens);
    }
  }
  if (options.add_special_tokens) tokens.insert(tokens.end(), suffix_.begin(), suffix_.end());
  return tokens;
}

void Tokenizer::EncodeText(std::string_view text, bool parse_special,
                           std::vector<TokenId>& tokens) const {
  while (!text.empty()) {
    const std::string_view valid = text.substr(0, ValidUtf8Prefix(text));
    if (nfc_ && !IsNfc(valid)) {
      EncodeNormalized(ToNfc(valid), parse_special, tokens);
    } else {
      EncodeNormalized(valid, parse_special, tokens);
    }
    text.remove_prefix(valid.size());
    if (text.empty()) break;
    const std::string_view invalid = text.substr(0, FirstUtf8Unit(text).length);
    EncodePretoken(invalid, tokens);
    text.remove_prefix(invalid.size());
  }
}

void Tokenizer::EncodeNormalized(std::string_view text, bool parse_special,
                                 std::vector<TokenId>& tokens) const {
  for (const TextPiece& piece : normalized_added_.Split(text, parse_special)) {
    if (piece.token) {
      tokens.push_back(*piece.token);
    } else {
      EncodePretokens(piece.text, tokens);
    }
  }
}

void Tokenizer::EncodePretokens(std::string_view text, std::vector<TokenId>& tokens) const {
  std::vector<std::string_view> pieces = {text};
  std::vector<std::string_view> finer;
  for (const RegexSplitter& splitter : splitters_) {
    finer.clear();
    for (const std::string_view piece : pieces) splitter.Split(piece, finer);
    pieces.swap(finer);
  }
  for (const std::string_view piece : pieces) EncodePretoken(piece, tokens);
}

void Tokenizer::EncodePretoken(std::string_view pretoken, std::vector<TokenId>& tokens) const {
  if (cache_.Append(pretoken, tokens)) return;
  const size_t before = tokens.size();
  model_.Encode(pretoken, tokens);
  cache_.Put(pretoken, std::vector<TokenId>(tokens.begin() + before, tokens.end()));
}

std::string Tokenizer::Decode(std::span<const TokenId> tokens, bool skip_special) const {
  std::string text;
  for (const TokenId token : tokens) {
    if (!skip_special || !IsSpecial(token)) text.append(TokenBytes(token));
  }
  return text;
}

std::string_view Tokenizer::TokenBytes(TokenId token) const {
  return token >= 0 && token < vocab_size() ? std::string_view(bytes_[token]) : "";
}

bool Tokenizer::IsSpecial(TokenId token) const {
  return token >= 0 && token < vocab_size() && special_[token];
}

std::optional<TokenId> Tokenizer::IdOf(std::string_view name) const {
  const auto it = ids_.find(std::string(name));
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

}  // namespace tarn::engine
