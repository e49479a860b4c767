#pragma once

// Tensors of a Hugging Face directory: `model.safetensors`, or the shards that
// `model.safetensors.index.json` names. Memory-mapped; nothing is copied.
//
// Format: 8 bytes of header length (little-endian), a JSON header {name: {dtype, shape,
// data_offsets}}, then the data (github.com/huggingface/safetensors). Everything in the header is
// checked against the file before it is used. A file that shrinks later, while mapped, cannot be.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tarn::engine {

enum class DataType : uint8_t { kF32, kF16, kBf16 };
int DataTypeBytes(DataType type);
std::string_view DataTypeName(DataType type);  // "F32", as in the files

// One tensor, row-major. Borrows the map: valid while its TensorFiles lives. `data` has the
// alignment that the file gives it, which may be none.
struct TensorView {
  DataType type = DataType::kF32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  size_t bytes = 0;

  bool empty() const { return data == nullptr; }
  // Element `i` of the flattened tensor, widened exactly.
  float At(size_t i) const;
};

// Immutable after Open; thread-safe.
class TensorFiles {
 public:
  // Maps every file. NOT_FOUND: no weights there. DATA_LOSS: truncated or contradictory file.
  // INVALID_ARGUMENT: not this format, or a type that is not supported. Names file and tensor.
  static absl::StatusOr<std::unique_ptr<TensorFiles>> Open(const std::string& model_dir);
  ~TensorFiles();
  TensorFiles(const TensorFiles&) = delete;
  TensorFiles& operator=(const TensorFiles&) = delete;

  // Null if there is none. By name, in order.
  const TensorView* Find(const std::string& name) const;
  const std::map<std::string, TensorView>& tensors() const { return tensors_; }

 private:
  class Mapping;
  TensorFiles();
  absl::Status AddFile(const std::string& path);
  absl::Status AddShards(const std::string& model_dir, const std::string& index_path);

  std::vector<std::unique_ptr<Mapping>> files_;
  std::map<std::string, TensorView> tensors_;
};

}  // namespace tarn::engine
