#define PCRE2_CODE_UNIT_WIDTH 8

#include "engine/text/regex_splitter.h"

#include <glog/logging.h>
#include <pcre2.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace tarn::engine {
namespace {

constexpr size_t kMaxPatternBytes = 64 << 10;
constexpr size_t kMaxJitStackBytes = 8 << 20;

// A thread's scratch memory for matching, shared by all expressions.
class Scratch {
 public:
  Scratch()
      : data_(pcre2_match_data_create(1, nullptr)),
        context_(pcre2_match_context_create(nullptr)),
        stack_(pcre2_jit_stack_create(32 << 10, kMaxJitStackBytes, nullptr)) {
    CHECK(data_ && context_ && stack_) << "out of memory";
    pcre2_jit_stack_assign(context_, nullptr, stack_);
  }
  ~Scratch() {
    pcre2_match_context_free(context_);
    pcre2_jit_stack_free(stack_);
    pcre2_match_data_free(data_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // Finds the first match at or behind `from`; false if there is none or a limit is hit.
  bool Match(const pcre2_code* code, std::string_view text, size_t from) {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    constexpr uint32_t kOptions = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
    int rc = pcre2_match(code, subject, text.size(), from, kOptions, data_, context_);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
      rc = pcre2_match(code, subject, text.size(), from, kOptions | PCRE2_NO_JIT, data_, context_);
    }
    return rc >= 0;
  }

  size_t start() const { return pcre2_get_ovector_pointer(data_)[0]; }
  size_t end() const { return pcre2_get_ovector_pointer(data_)[1]; }

 private:
  pcre2_match_data* const data_;
  pcre2_match_context* const context_;
  pcre2_jit_stack* const stack_;
};

}  // namespace

void RegexSplitter::Free::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

absl::StatusOr<RegexSplitter> RegexSplitter::Compile(const std::string& pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(absl::StrCat("split pattern of ", pattern.size(),
                                                   " bytes; the limit is ", kMaxPatternBytes));
  }
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (code == nullptr) {
    PCRE2_UCHAR message[256];
    pcre2_get_error_message(error, message, sizeof(message));
    return absl::InvalidArgumentError(absl::StrCat("split pattern, at byte ", offset, ": ",
                                                   reinterpret_cast<const char*>(message)));
  }
  // Where this fails (no executable memory), PCRE2 interprets.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  return RegexSplitter(code);
}

void RegexSplitter::Split(std::string_view text, std::vector<std::string_view>& pieces) const {
  static thread_local Scratch scratch;
  size_t at = 0;
  while (at < text.size() && scratch.Match(code_.get(), text, at)) {
    // \K and look-behinds may report a start before `at`, or behind the end.
    const size_t start = std::max(scratch.start(), at);
    const size_t end = scratch.end();
    if (end <= start) break;
    if (start > at) pieces.push_back(text.substr(at, start - at));
    pieces.push_back(text.substr(start, end - start));
    at = end;
  }
  if (at < text.size()) pieces.push_back(text.substr(at));
}

}  // namespace tarn::engine
