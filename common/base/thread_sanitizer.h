#pragma once

namespace tarn {

// Whether this is built with ThreadSanitizer, some ten times slower: tests whose cases differ in
// arithmetic, not in threads, then take a few of them.
#if defined(__SANITIZE_THREAD__)
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif

}  // namespace tarn
