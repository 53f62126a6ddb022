// A sample's series as text: name{label="value",...}.
#pragma once

#include <initializer_list>

#include "ngx_module/admit/status_source.h"
#include "ngx_module/conf/text.h"

namespace penstock {

// Values are escaped already.
class SeriesText {
 public:
  struct Label {
    std::string_view name, value;
  };

  SeriesText(std::string_view name, std::initializer_list<Label> labels,
             const Label& last = {}) noexcept {
    Text to(text_);
    to.raw(name);
    char before = '{';
    const auto add = [&](const Label& label) {
      to.raw({&before, 1}).raw(label.name).raw("=\"").raw(label.value).raw("\"");
      before = ',';
    };
    for (const Label& label : labels) {
      add(label);
    }
    if (!last.name.empty()) {
      add(last);
    }
    to.raw("}");
    size_ = static_cast<size_t>(to.at() - text_);
  }
  operator std::string_view() const noexcept { return {text_, size_}; }

 private:
  // The longest metric and its labels' names, a socket's path with all of it escaped, one more
  // name, and what a device or a worker is called, escaped likewise.
  char text_[192 + kMaxSocketLabel + 64 + 3 * 232];
  size_t size_;
};

}  // namespace penstock
