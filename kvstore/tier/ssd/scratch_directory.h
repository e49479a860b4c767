#pragma once

// A directory that a test works in. For tests.

#include <glog/logging.h>
#include <stdlib.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace tarn::kvstore {

class ScratchDirectory {
 public:
  ScratchDirectory() {
    const char* parent = std::getenv("TEST_TMPDIR");
    path_ = std::string(parent != nullptr ? parent : "/tmp") + "/ssd-XXXXXX";
    PCHECK(mkdtemp(path_.data()) != nullptr) << path_;
  }
  ~ScratchDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace tarn::kvstore
