#include "engine/model/safetensors.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "engine/model/fingerprint.h"
#include "engine/model/weights.h"
#include "gtest/gtest.h"

namespace tarn::engine {
namespace {

class SafetensorsTest : public testing::Test {
 protected:
  SafetensorsTest() {
    const char* root = std::getenv("TEST_TMPDIR");
    const std::string name = testing::UnitTest::GetInstance()->current_test_info()->name();
    directory_ = absl::StrCat(root == nullptr ? "/tmp" : root, "/safetensors_", name);
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
  }
  ~SafetensorsTest() override { std::filesystem::remove_all(directory_); }

  void Write(const std::string& name, const std::string& bytes) {
    std::ofstream(absl::StrCat(directory_, "/", name), std::ios::binary) << bytes;
  }

  static std::string File(const std::string& header, const std::string& data) {
    const uint64_t length = header.size();
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &length, 8);
    return bytes + header + data;
  }

  absl::Status Open() { return TensorFiles::Open(directory_).status(); }

  std::string directory_;
};

TEST_F(SafetensorsTest, ReadsEveryType) {
  const float f32[2] = {1.5f, -2};
  const uint16_t halves[] = {0x3c00, 0xc000, 0x0001, 0x7c00, 0x3fc0, 0x8000};
  Write("model.safetensors", File(R"({"__metadata__": {"format": "pt"},
                 "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                 "b": {"dtype": "F16", "shape": [2, 2], "data_offsets": [8, 16]},
                 "c": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [16, 20]},
                 "empty": {"dtype": "F32", "shape": [0], "data_offsets": [20, 20]}})",
                                  std::string(reinterpret_cast<const char*>(f32), 8) +
                                      std::string(reinterpret_cast<const char*>(halves), 12)));
  const auto files = TensorFiles::Open(directory_);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ((*files)->tensors().size(), 4u);
  EXPECT_EQ((*files)->Find("a")->At(0), 1.5f);
  EXPECT_EQ((*files)->Find("a")->At(1), -2.0f);
  const TensorView& b = *(*files)->Find("b");
  EXPECT_EQ(b.shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(b.At(0), 1.0f);
  EXPECT_EQ(b.At(1), -2.0f);
  EXPECT_EQ(b.At(2), 0x1p-24f);
  EXPECT_EQ(b.At(3), INFINITY);
  EXPECT_EQ((*files)->Find("c")->At(0), 1.5f);
  EXPECT_TRUE(std::signbit((*files)->Find("c")->At(1)));
  EXPECT_EQ((*files)->Find("d"), nullptr);
}

TEST_F(SafetensorsTest, RefusesBadHeaders) {
  struct Case {
    const char* tensor;
    absl::StatusCode code;
    const char* message;
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  constexpr auto kLoss = absl::StatusCode::kDataLoss;
  const Case cases[] = {
      {R"(3)", kInvalid, "expected an object"},
      {R"({"shape": [2], "data_offsets": [0, 8]})", kInvalid, "dtype"},
      {R"({"dtype": "I8", "shape": [8], "data_offsets": [0, 8]})", kInvalid, "expected F32"},
      {R"({"dtype": 1, "shape": [2], "data_offsets": [0, 8]})", kInvalid, "dtype"},
      {R"({"dtype": "F32", "data_offsets": [0, 8]})", kInvalid, "shape"},
      {R"({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]})", kInvalid, "shape"},
      {R"({"dtype": "F32", "shape": [2.5], "data_offsets": [0, 8]})", kInvalid, "shape"},
      {R"({"dtype": "F32", "shape": [4294967296], "data_offsets": [0, 8]})", kInvalid, "large"},
      {R"({"dtype": "F32", "shape": [2147483647, 2147483647, 2147483647, 8],
           "data_offsets": [0, 8]})",
       kInvalid, "large"},
      {R"({"dtype": "F32", "shape": [2]})", kInvalid, "data_offsets"},
      {R"({"dtype": "F32", "shape": [2], "data_offsets": [0]})", kInvalid, "data_offsets"},
      {R"({"dtype": "F32", "shape": [2], "data_offsets": [0, -8]})", kInvalid, "data_offsets"},
      {R"({"dtype": "F32", "shape": [2], "data_offsets": [8, 0]})", kLoss, "outside"},
      {R"({"dtype": "F32", "shape": [2], "data_offsets": [0, 12]})", kLoss, "truncated"},
      {R"({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]})", kLoss, "need 12"},
      {R"({"dtype": "BF16", "shape": [2], "data_offsets": [0, 8]})", kLoss, "need 4"},
      {R"({"dtype": "F32", "shape": [1], "data_offsets": [4, 8]})", kLoss, "belong to no tensor"},
      {R"({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]})", kLoss, "cover 4"},
  };
  for (const Case& c : cases) {
    Write("model.safetensors", File(absl::StrCat("{\"w\": ", c.tensor, "}"), "12345678"));
    const absl::Status status = Open();
    EXPECT_EQ(status.code(), c.code) << c.tensor << " " << status;
    EXPECT_NE(Message(status).find("model.safetensors"), std::string::npos) << status;
    EXPECT_NE(Message(status).find(c.message), std::string::npos) << status;
  }
}

TEST_F(SafetensorsTest, RefusesOverlap) {
  Write("model.safetensors", File(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                 "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}})",
                                  std::string(12, 'x')));
  EXPECT_EQ(Open().code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(Message(Open()).find("tensor b: overlaps"), std::string::npos) << Open();
}

TEST_F(SafetensorsTest, RefusesDamagedFiles) {
  const std::string good =
      File(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})", "12345678");
  // Every truncation fails, and none crashes.
  for (size_t length = 0; length < good.size(); ++length) {
    Write("model.safetensors", good.substr(0, length));
    EXPECT_EQ(Open().code(), absl::StatusCode::kDataLoss) << length;
  }
  Write("model.safetensors", good);
  EXPECT_TRUE(Open().ok()) << Open();
  Write("model.safetensors", std::string(8, '\xff') + "{}");
  EXPECT_EQ(Open().code(), absl::StatusCode::kInvalidArgument) << Open();
  Write("model.safetensors", File("{not json", ""));
  EXPECT_EQ(Open().code(), absl::StatusCode::kInvalidArgument) << Open();
  Write("model.safetensors", good + "extra");
  EXPECT_EQ(Open().code(), absl::StatusCode::kDataLoss) << Open();
  std::filesystem::remove(absl::StrCat(directory_, "/model.safetensors"));
  EXPECT_EQ(Open().code(), absl::StatusCode::kNotFound) << Open();
}

TEST_F(SafetensorsTest, Shards) {
  const std::string a =
      File(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})", "aaaa");
  const std::string b =
      File(R"({"b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})", "bbbb");
  const std::string index = "model.safetensors.index.json";
  Write("1.safetensors", a);
  Write("2.safetensors", b);
  Write(index, R"({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})");
  const auto files = TensorFiles::Open(directory_);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_NE((*files)->Find("a"), nullptr);
  EXPECT_NE((*files)->Find("b"), nullptr);

  struct Case {
    const char* index;
    absl::StatusCode code;
    const char* message;
  };
  const Case cases[] = {
      {"{", absl::StatusCode::kInvalidArgument, "JSON"},
      {"{}", absl::StatusCode::kInvalidArgument, "weight_map"},
      {R"({"weight_map": {"a": 1}})", absl::StatusCode::kInvalidArgument, "weight_map.a"},
      {R"({"weight_map": {"a": "../x"}})", absl::StatusCode::kInvalidArgument, "file name"},
      {R"({"weight_map": {"a": "3.safetensors"}})", absl::StatusCode::kNotFound, "3.safetensors"},
      {R"({"weight_map": {"c": "1.safetensors"}})", absl::StatusCode::kDataLoss, "weight_map.c"},
  };
  for (const Case& c : cases) {
    Write(index, c.index);
    EXPECT_EQ(Open().code(), c.code) << Open();
    EXPECT_NE(Message(Open()).find(c.message), std::string::npos) << Open();
  }
  Write("2.safetensors", a);
  Write(index, R"({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})");
  EXPECT_NE(Message(Open()).find("another shard"), std::string::npos) << Open();
}

TEST_F(SafetensorsTest, HashCoversNameTypeShapeAndBytes) {
  const std::byte bytes[8] = {};
  const std::byte other[8] = {std::byte{1}};
  const TensorView view = {DataType::kF32, {2, 1}, bytes, 8};
  const uint64_t base = HashTensor("a", view);
  EXPECT_EQ(HashTensor("a", view), base);
  EXPECT_NE(HashTensor("b", view), base);
  EXPECT_NE(HashTensor("a", {DataType::kF32, {1, 2}, bytes, 8}), base);
  EXPECT_NE(HashTensor("a", {DataType::kBf16, {2, 1}, bytes, 8}), base);
  EXPECT_NE(HashTensor("a", {DataType::kF32, {2, 1}, other, 8}), base);
  EXPECT_NE(CheckpointFingerprint("x", {{"a", base}}), CheckpointFingerprint("y", {{"a", base}}));
}

TEST_F(SafetensorsTest, WeightsNameTheTensor) {
  ModelConfig config;
  config.hidden_size = 2;
  config.layers = 1;
  config.heads = config.kv_heads = 1;
  config.head_dim = 2;
  config.intermediate_size = 2;
  config.vocab_size = 1;
  Write("model.safetensors", File(R"({"model.embed_tokens.weight":
                  {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}})",
                                  "12345678"));
  auto files = TensorFiles::Open(directory_);
  ASSERT_TRUE(files.ok()) << files.status();
  const absl::Status missing = BindWeights(config, **files).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(Message(missing).find("model.layers.0.input_layernorm.weight is missing"),
            std::string::npos)
      << missing;
  config.vocab_size = 2;
  const absl::Status shape = BindWeights(config, **files).status();
  EXPECT_NE(Message(shape).find("has shape [1, 2], config.json asks for [2, 2]"), std::string::npos)
      << shape;
}

}  // namespace
}  // namespace tarn::engine
