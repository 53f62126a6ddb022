// SharedBytes: bytes that several hold and nobody changes, so that a large body is in memory once.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace penstock {

class SharedBytes {
 public:
  SharedBytes() = default;  // none
  SharedBytes(std::string bytes) : bytes_(std::make_shared<const std::string>(std::move(bytes))) {}
  SharedBytes(const char* text) : SharedBytes(std::string(text)) {}

  // Valid while anybody holds them.
  std::string_view view() const noexcept {
    return bytes_ == nullptr ? std::string_view() : *bytes_;
  }
  size_t size() const noexcept { return view().size(); }
  bool empty() const noexcept { return view().empty(); }

 private:
  std::shared_ptr<const std::string> bytes_;
};

}  // namespace penstock
