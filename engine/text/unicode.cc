#include "engine/text/unicode.h"

#include <glog/logging.h>
#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/stringpiece.h>
#include <unicode/uchar.h>

#include <cstdint>

#include "engine/text/utf8.h"

namespace tarn::engine {
namespace {

const icu::Normalizer2& Nfc() {
  static const icu::Normalizer2* const nfc = [] {
    UErrorCode error = U_ZERO_ERROR;
    const icu::Normalizer2* instance = icu::Normalizer2::getNFCInstance(error);
    CHECK(U_SUCCESS(error)) << "ICU has no NFC data: " << u_errorName(error);
    return instance;
  }();
  return *nfc;
}

icu::StringPiece Piece(std::string_view text) {
  CHECK_LE(text.size(), static_cast<size_t>(INT32_MAX));
  return icu::StringPiece(text.data(), static_cast<int32_t>(text.size()));
}

// Python counts the four information separators as white space, Unicode does not.
bool IsStripped(char32_t character) {
  return IsSpace(character) || (character >= 0x1C && character <= 0x1F);
}

}  // namespace

std::string ToNfc(std::string_view text) {
  std::string out;
  icu::StringByteSink<std::string> sink(&out);
  UErrorCode error = U_ZERO_ERROR;
  Nfc().normalizeUTF8(0, Piece(text), sink, nullptr, error);
  CHECK(U_SUCCESS(error)) << u_errorName(error);
  return out;
}

bool IsNfc(std::string_view text) {
  if (IsAscii(text)) return true;
  UErrorCode error = U_ZERO_ERROR;
  const bool normalized = Nfc().isNormalizedUTF8(Piece(text), error);
  CHECK(U_SUCCESS(error)) << u_errorName(error);
  return normalized;
}

bool IsSpace(char32_t character) {
  return u_hasBinaryProperty(static_cast<UChar32>(character), UCHAR_WHITE_SPACE);
}

bool IsWordCharacter(char32_t character) {
  const auto c = static_cast<UChar32>(character);
  constexpr uint32_t kCategories = U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK;
  return u_hasBinaryProperty(c, UCHAR_ALPHABETIC) || (U_GET_GC_MASK(c) & kCategories) != 0 ||
         u_hasBinaryProperty(c, UCHAR_JOIN_CONTROL);
}

std::string_view StripSpace(std::string_view text) {
  while (!text.empty()) {
    const Utf8Unit unit = FirstUtf8Unit(text);
    if (unit.kind != Utf8Unit::Kind::kValid || !IsStripped(unit.character)) break;
    text.remove_prefix(unit.length);
  }
  while (!text.empty()) {
    const size_t start = LastCharacterStart(text);
    const Utf8Unit unit = FirstUtf8Unit(text.substr(start));
    if (unit.kind != Utf8Unit::Kind::kValid || !IsStripped(unit.character)) break;
    text = text.substr(0, start);
  }
  return text;
}

}  // namespace tarn::engine
