// Where the fixtures are, and small helpers the tests of this folder share.
#pragma once

#include <gtest/gtest.h>
#include <simdjson.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace penstock::llama {

inline const std::string kSource = PENSTOCK_SOURCE_DIR;
inline const std::string kDemo = kSource + "/config/models/demo";

inline std::string slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

inline void spill(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
}

// Every folder with a model and its expected.json.
inline std::vector<std::string> model_fixtures() {
  std::vector<std::string> folders;
  for (const auto& entry : std::filesystem::directory_iterator(kSource + "/tests/fixtures/llama")) {
    if (std::filesystem::exists(entry.path() / "expected.json")) {
      folders.push_back(entry.path().string());
    }
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

// A folder of its own, gone with the object.
class TempFolder {
 public:
  TempFolder() {
    std::string name = testing::TempDir() + "llama_XXXXXX";
    path_ = mkdtemp(name.data());
  }
  explicit TempFolder(const std::string& copy_of) : TempFolder() {
    std::filesystem::copy(copy_of, path_, std::filesystem::copy_options::recursive);
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

template <typename T>
std::vector<T> numbers(simdjson::dom::element element) {
  std::vector<T> values;
  for (const auto value : element.get_array()) {
    if constexpr (std::is_integral_v<T>) {
      values.push_back(static_cast<T>(value.get_int64().value()));
    } else {
      values.push_back(static_cast<T>(value.get_double().value()));
    }
  }
  return values;
}

}  // namespace penstock::llama
