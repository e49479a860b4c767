#include "engine/model/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "engine/model/json_fields.h"
#include "engine/model/model_config.h"

namespace tarn::engine {

static_assert(std::endian::native == std::endian::little, "safetensors is little-endian");

namespace {

// The reference implementation's limit.
constexpr uint64_t kMaxHeader = 100'000'000;
constexpr size_t kMaxRank = 8;

absl::Status Bad(const std::string& file, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", what));
}

absl::Status Lost(const std::string& file, const std::string& what) {
  return absl::DataLossError(absl::StrCat(file, ": ", what));
}

float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = (half >> 10) & 0x1f;
  const uint32_t mantissa = half & 0x3ff;
  if (exponent == 0) {  // Zero or subnormal: mantissa * 2^-24.
    const float value = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
  }
  const uint32_t wide = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | (wide << 23) | (mantissa << 13));
}

// A span of the data that a tensor occupies, to find overlaps and holes.
struct Extent {
  uint64_t begin = 0;
  uint64_t end = 0;
  std::string name;
};

bool IsCount(const nlohmann::json& json) { return json.is_number_unsigned(); }

absl::StatusOr<DataType> ParseType(const nlohmann::json& tensor, const std::string& where) {
  const auto it = tensor.find("dtype");
  if (it == tensor.end() || !it->is_string()) return Bad(where, "dtype: expected a string");
  for (DataType type : {DataType::kF32, DataType::kF16, DataType::kBf16}) {
    if (it->get<std::string>() == DataTypeName(type)) return type;
  }
  return Bad(where,
             absl::StrCat("dtype: is ", it->dump(-1, ' ', true), ", expected F32, F16 or BF16"));
}

absl::StatusOr<std::vector<int64_t>> ParseShape(const nlohmann::json& tensor,
                                                const std::string& where) {
  const auto it = tensor.find("shape");
  if (it == tensor.end() || !it->is_array() || it->size() > kMaxRank ||
      !std::all_of(it->begin(), it->end(), IsCount)) {
    return Bad(where, absl::StrCat("shape: expected a list of at most ", kMaxRank, " sizes"));
  }
  std::vector<int64_t> shape;
  uint64_t elements = 1;
  for (const nlohmann::json& size : *it) {
    const uint64_t dim = size.get<uint64_t>();
    uint64_t product = 0;
    if (dim > INT32_MAX || __builtin_mul_overflow(elements, dim, &product) ||
        product > (uint64_t{1} << 48)) {
      return Bad(where, absl::StrCat("shape: ", it->dump(), " is too large"));
    }
    elements = product;
    shape.push_back(static_cast<int64_t>(dim));
  }
  return shape;
}

// `data` is what follows the header.
absl::StatusOr<TensorView> ParseTensor(const nlohmann::json& json, const std::string& where,
                                       std::pair<const std::byte*, uint64_t> data, Extent* extent) {
  if (!json.is_object()) return Bad(where, "expected an object");
  TensorView view;
  ASSIGN_OR_RETURN(view.type, ParseType(json, where));
  ASSIGN_OR_RETURN(view.shape, ParseShape(json, where));
  const auto offsets = json.find("data_offsets");
  if (offsets == json.end() || !offsets->is_array() || offsets->size() != 2 ||
      !IsCount((*offsets)[0]) || !IsCount((*offsets)[1])) {
    return Bad(where, "data_offsets: expected [begin, end]");
  }
  extent->begin = (*offsets)[0].get<uint64_t>();
  extent->end = (*offsets)[1].get<uint64_t>();
  if (extent->begin > extent->end || extent->end > data.second) {
    return Lost(where, absl::StrCat("data_offsets: ", offsets->dump(), " is outside the ",
                                    data.second, " bytes of data: truncated file?"));
  }
  uint64_t bytes = static_cast<uint64_t>(DataTypeBytes(view.type));
  for (int64_t dim : view.shape) bytes *= static_cast<uint64_t>(dim);
  if (bytes != extent->end - extent->begin) {
    return Lost(where, absl::StrCat("data_offsets: holds ", extent->end - extent->begin,
                                    " bytes, dtype and shape need ", bytes));
  }
  view.data = data.first + extent->begin;
  view.bytes = bytes;
  return view;
}

absl::Status CheckExtents(std::vector<Extent> extents, uint64_t data_bytes,
                          const std::string& path) {
  std::sort(extents.begin(), extents.end(), [](const Extent& a, const Extent& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t end = 0;
  for (const Extent& extent : extents) {
    if (extent.begin < end) {
      return Lost(path, absl::StrCat("tensor ", extent.name, ": overlaps another tensor"));
    }
    if (extent.begin > end) {
      return Lost(path, absl::StrCat("tensor ", extent.name, ": bytes ", end, " to ", extent.begin,
                                     " before it belong to no tensor"));
    }
    end = extent.end;
  }
  if (end != data_bytes) {
    return Lost(path, absl::StrCat("has ", data_bytes, " bytes of data, its tensors cover ", end));
  }
  return absl::OkStatus();
}

}  // namespace

int DataTypeBytes(DataType type) { return type == DataType::kF32 ? 4 : 2; }

std::string_view DataTypeName(DataType type) {
  switch (type) {
    case DataType::kF32:
      return "F32";
    case DataType::kF16:
      return "F16";
    case DataType::kBf16:
      return "BF16";
  }
  return "?";
}

float TensorView::At(size_t i) const {
  if (type == DataType::kF32) {
    float value;
    std::memcpy(&value, data + i * sizeof(value), sizeof(value));
    return value;
  }
  uint16_t half;
  std::memcpy(&half, data + i * sizeof(half), sizeof(half));
  if (type == DataType::kF16) return HalfToFloat(half);
  return std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
}

// A whole file, mapped read-only.
class TensorFiles::Mapping {
 public:
  static absl::StatusOr<std::unique_ptr<Mapping>> Open(const std::string& path) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return absl::NotFoundError(absl::StrCat(path, ": ", std::strerror(errno)));
    struct stat info {};
    void* base = MAP_FAILED;
    if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size >= 8) {
      base = mmap(nullptr, static_cast<size_t>(info.st_size), PROT_READ, MAP_PRIVATE, fd, 0);
    }
    close(fd);
    if (base == MAP_FAILED) return Lost(path, "cannot be mapped: not a file of 8 bytes or more");
    return std::unique_ptr<Mapping>(
        new Mapping(static_cast<const std::byte*>(base), static_cast<uint64_t>(info.st_size)));
  }
  ~Mapping() { munmap(const_cast<std::byte*>(base_), size_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  const std::byte* base() const { return base_; }
  uint64_t size() const { return size_; }

 private:
  Mapping(const std::byte* base, uint64_t size) : base_(base), size_(size) {}
  const std::byte* base_;
  uint64_t size_;
};

TensorFiles::TensorFiles() = default;
TensorFiles::~TensorFiles() = default;

absl::Status TensorFiles::AddFile(const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<Mapping> file, Mapping::Open(path));
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file->base(), sizeof(header_bytes));
  if (header_bytes > kMaxHeader) {
    return Bad(path, absl::StrCat("header length is ", header_bytes, ", the limit is ", kMaxHeader,
                                  ": not a safetensors file?"));
  }
  if (header_bytes > file->size() - 8) {
    return Lost(path, absl::StrCat("header length is ", header_bytes, " but only ",
                                   file->size() - 8, " bytes follow: truncated file?"));
  }
  const std::string text(reinterpret_cast<const char*>(file->base()) + 8, header_bytes);
  ASSIGN_OR_RETURN(const nlohmann::json header, ParseJsonObject(text, path));
  const std::pair data(file->base() + 8 + header_bytes, file->size() - 8 - header_bytes);
  std::vector<Extent> extents;
  for (const auto& [name, json] : header.items()) {
    if (name == "__metadata__") continue;
    const std::string where = absl::StrCat(path, ": tensor ", name);
    Extent extent{.name = name};
    ASSIGN_OR_RETURN(TensorView view, ParseTensor(json, where, data, &extent));
    extents.push_back(std::move(extent));
    if (!tensors_.emplace(name, std::move(view)).second) {
      return Lost(where, "is in another shard too");
    }
  }
  files_.push_back(std::move(file));
  return CheckExtents(std::move(extents), data.second, path);
}

absl::Status TensorFiles::AddShards(const std::string& model_dir, const std::string& index_path) {
  ASSIGN_OR_RETURN(const std::string text, ReadTextFile(index_path, kMaxHeader));
  ASSIGN_OR_RETURN(const nlohmann::json index, ParseJsonObject(text, index_path));
  const JsonFields fields(index, index_path);
  if (!fields.Has("weight_map") || !fields["weight_map"].is_object()) {
    return fields.Error("weight_map", "expected an object from tensors to files");
  }
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : fields["weight_map"].items()) {
    if (!shard.is_string() || shard.get<std::string>().find('/') != std::string::npos) {
      return fields.Error(absl::StrCat("weight_map.", tensor), "expected a file name");
    }
    shards.insert(shard.get<std::string>());
  }
  for (const std::string& shard : shards) {
    RETURN_IF_ERROR(AddFile(absl::StrCat(model_dir, "/", shard)));
  }
  for (const auto& [tensor, shard] : fields["weight_map"].items()) {
    if (tensors_.contains(tensor)) continue;
    return Lost(index_path,
                absl::StrCat("weight_map.", tensor, ": not in ", shard.get<std::string>()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<TensorFiles>> TensorFiles::Open(const std::string& model_dir) {
  std::unique_ptr<TensorFiles> files(new TensorFiles());
  const std::string single = absl::StrCat(model_dir, "/model.safetensors");
  const std::string index = absl::StrCat(model_dir, "/model.safetensors.index.json");
  if (access(index.c_str(), F_OK) == 0) {
    RETURN_IF_ERROR(files->AddShards(model_dir, index));
  } else if (access(single.c_str(), F_OK) == 0) {
    RETURN_IF_ERROR(files->AddFile(single));
  } else {
    return absl::NotFoundError(absl::StrCat(
        model_dir, ": has neither model.safetensors nor model.safetensors.index.json"));
  }
  return files;
}

const TensorView* TensorFiles::Find(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

}  // namespace tarn::engine
