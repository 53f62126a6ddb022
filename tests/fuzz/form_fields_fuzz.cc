// Any form, cut anywhere: what is found must not depend on where it was cut.
#include <cstdlib>
#include <string>
#include <string_view>

#include "shared/http/form_fields.h"

using penstock::http::BodyField;
using penstock::http::FormFields;

namespace {

constexpr std::string_view kNames[] = {"model", "prompt", "n"};

void expect_same(const FormFields& a, const FormFields& b) {
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (a[i].type != b[i].type || a[i].text != b[i].text || a[i].bytes != b[i].bytes ||
        a[i].digest != b[i].digest || a.files() != b.files() || a.is_form() != b.is_form()) {
      std::abort();
    }
  }
}

}  // namespace

// The first byte says where to cut; then comes the type's line, then the body.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t line = input.find('\n');
  if (line == std::string_view::npos || line == 0) {
    return 0;
  }
  const std::string type = "multipart/form-data; " + std::string(input.substr(1, line - 1));
  const std::string_view body = input.substr(line + 1);
  const size_t cut = body.empty() ? 0 : data[0] % body.size();
  FormFields whole(kNames, type);
  whole.feed(body);
  FormFields halves(kNames, type);
  halves.feed(body.substr(0, cut));
  halves.feed(body.substr(cut));
  FormFields crumbs(kNames, type);
  for (size_t i = 0; i < body.size() && !crumbs.feed(body.substr(i, 1)); ++i) {
  }
  expect_same(whole, halves);
  expect_same(whole, crumbs);
  for (size_t i = 0; i < std::size(kNames); ++i) {
    const bool found = whole[i].type != BodyField::Type::kMissing;
    if (found && (whole.begin(i) != crumbs.begin(i) || whole.begin(i) + whole[i].bytes > size)) {
      std::abort();
    }
    const std::string_view text = whole[i].text;
    if (!text.empty() && body.substr(whole.begin(i), text.size()) != text) {
      std::abort();
    }
    if (whole[i].bytes > body.size() || whole[i].text.size() > FormFields::kMaxValueBytes) {
      std::abort();
    }
  }
  return 0;
}
