#include "engine/text/added_tokens.h"

#include <algorithm>
#include <utility>

#include "engine/text/unicode.h"
#include "engine/text/utf8.h"

namespace tarn::engine {
namespace {

uint64_t Edge(int32_t node, char byte) {
  return static_cast<uint64_t>(node) << 8 | static_cast<uint8_t>(byte);
}

std::optional<char32_t> FirstCharacter(std::string_view text) {
  if (text.empty()) return std::nullopt;
  const Utf8Unit unit = FirstUtf8Unit(text);
  if (unit.kind != Utf8Unit::Kind::kValid) return std::nullopt;
  return unit.character;
}

std::optional<char32_t> LastCharacter(std::string_view text) {
  if (text.empty()) return std::nullopt;
  const std::string_view last = text.substr(LastCharacterStart(text));
  const Utf8Unit unit = FirstUtf8Unit(last);
  if (unit.kind != Utf8Unit::Kind::kValid || unit.length != last.size()) return std::nullopt;
  return unit.character;
}

// Where the white space at the end of `text` begins, not before `from`.
size_t TrailingSpace(std::string_view text, size_t from) {
  size_t start = text.size();
  while (start > from) {
    const std::string_view before = text.substr(from, start - from);
    const auto character = LastCharacter(before);
    if (!character || !IsSpace(*character)) break;
    start = from + LastCharacterStart(before);
  }
  return start;
}

size_t LeadingSpace(std::string_view text) {
  size_t length = 0;
  while (length < text.size()) {
    const auto character = FirstCharacter(text.substr(length));
    if (!character || !IsSpace(*character)) break;
    length += FirstUtf8Unit(text.substr(length)).length;
  }
  return length;
}

bool InsideWord(std::string_view before, std::string_view after) {
  const auto is_word = [](std::optional<char32_t> c) { return c && IsWordCharacter(*c); };
  return is_word(LastCharacter(before)) || is_word(FirstCharacter(after));
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  token_at_.push_back(kNone);
  for (size_t i = 0; i < tokens_.size(); ++i) {
    int32_t node = 0;
    for (const char byte : tokens_[i].content) {
      const auto [edge, is_new] =
          edges_.try_emplace(Edge(node, byte), static_cast<int32_t>(token_at_.size()));
      node = edge->second;
      if (is_new) token_at_.push_back(kNone);
    }
    token_at_[node] = static_cast<int32_t>(i);
    starts_[static_cast<uint8_t>(tokens_[i].content[0])] = true;
  }
}

const AddedToken* AddedTokenMatcher::Longest(std::string_view text) const {
  const AddedToken* longest = nullptr;
  int32_t node = 0;
  for (const char byte : text) {
    const auto edge = edges_.find(Edge(node, byte));
    if (edge == edges_.end()) break;
    node = edge->second;
    if (token_at_[node] != kNone) longest = &tokens_[token_at_[node]];
  }
  return longest;
}

std::vector<TextPiece> AddedTokenMatcher::Split(std::string_view text, bool parse_special) const {
  std::vector<TextPiece> pieces;
  size_t done = 0;  // `pieces` covers the text up to here
  for (size_t at = 0; at < text.size();) {
    const AddedToken* token =
        starts_[static_cast<uint8_t>(text[at])] ? Longest(text.substr(at)) : nullptr;
    if (token == nullptr) {
      ++at;
      continue;
    }
    size_t start = at;
    size_t end = at + token->content.size();
    at = end;
    if (token->special && !parse_special) continue;
    if (token->single_word && InsideWord(text.substr(0, start), text.substr(end))) continue;
    if (token->lstrip) start = TrailingSpace(text.substr(0, start), done);
    if (token->rstrip) end += LeadingSpace(text.substr(end));
    if (start > done) pieces.push_back({text.substr(done, start - done), std::nullopt});
    pieces.push_back({text.substr(start, end - start), token->id});
    done = at = end;
  }
  if (done < text.size()) pieces.push_back({text.substr(done), std::nullopt});
  return pieces;
}

}  // namespace tarn::engine
