// Arguments: what a script is called with, on the stack.
#pragma once

#include "ngx_module/nginx.h"

#include <charconv>
#include <span>

namespace penstock {

// As many as any script has.
class Arguments {
 public:
  void add(std::string_view text) noexcept { words_[count_++] = text; }
  template <class Number>
  void number(Number value) noexcept {
    char* end = std::to_chars(at_, text_ + sizeof text_, value).ptr;
    add({at_, static_cast<size_t>(end - at_)});
    at_ = end;
  }
  // HOST:NUMBER
  void call_name(std::string_view host, uint64_t number) noexcept {
    char* const from = at_;
    at_ = std::copy(host.begin(), host.end(), at_);
    *at_++ = ':';
    at_ = std::to_chars(at_, text_ + sizeof text_, number).ptr;
    add({from, static_cast<size_t>(at_ - from)});
  }
  std::span<const std::string_view> words() const noexcept { return {words_, count_}; }

 private:
  static constexpr size_t kMost = 20;
  std::string_view words_[kMost];
  size_t count_ = 0;
  char text_[kMost * 24];
  char* at_ = text_;
};

}  // namespace penstock
