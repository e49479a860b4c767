#pragma once

// Cuts a text into pretokens by a regular expression: matches and what lies between them.
//
// PCRE2 with Unicode properties, compiled to machine code where PCRE2 can. Immutable and
// thread-safe: what a match needs is kept by each thread. One known difference from Oniguruma,
// which Hugging Face uses: here \s takes U+180E (MONGOLIAN VOWEL SEPARATOR) as a space.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

struct pcre2_real_code_8;

namespace tarn::engine {

class RegexSplitter {
 public:
  // INVALID_ARGUMENT: `pattern` does not compile (says where and why), or is over 64 KiB.
  static absl::StatusOr<RegexSplitter> Compile(const std::string& pattern);

  // Appends the pieces of `text`, in order: none is empty and together they are `text`, which must
  // be valid UTF-8. Should the expression exhaust the matcher's limits, the rest of the text is one
  // piece. Views into `text`.
  void Split(std::string_view text, std::vector<std::string_view>& pieces) const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
  };
  explicit RegexSplitter(pcre2_real_code_8* code) : code_(code) {}

  std::unique_ptr<pcre2_real_code_8, Free> code_;
};

}  // namespace tarn::engine
