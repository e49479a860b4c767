#pragma once

// memcpy for bytes that are not read soon: from some size on it writes past the caches, which saves
// reading the target's lines first and leaves the caches to others.

#include <cstddef>

namespace tarn {

// The ranges do not overlap. `from` may be written meanwhile: then some mix arrives.
void StreamCopy(std::byte* to, const std::byte* from, size_t size);

}  // namespace tarn
