// Any body, cut anywhere: what is found of a field must depend neither on where the body was cut
// nor on which other fields are wanted.
#include <cmath>
#include <cstdlib>
#include <span>
#include <string_view>

#include "shared/http/body_fields.h"

using penstock::http::BodyField;
using penstock::http::BodyFields;

namespace {

constexpr std::string_view kNames[] = {"model", "size", "n", "messages"};
constexpr std::span<const std::string_view> kAll = kNames;

void expect_same(const BodyField& a, const BodyField& b) {
  if (a.type != b.type || a.text != b.text || a.bytes != b.bytes || a.digest != b.digest ||
      a.media != b.media || a.media_bytes != b.media_bytes) {
    std::abort();
  }
}

void expect_promises(const BodyField& field, size_t body_bytes) {
  const double number = number_of(field);
  if (field.bytes > body_bytes || field.media_bytes > field.bytes ||
      field.text.size() > BodyFields::kMaxValueBytes ||
      (field.type == BodyField::Type::kNumber && std::isnan(number)) ||
      (field.type == BodyField::Type::kMissing && (field.bytes != 0 || !field.text.empty()))) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) {
    return 0;
  }
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t cut = body.empty() ? 0 : data[0] % body.size();
  BodyFields whole(kAll);
  whole.feed(body);
  BodyFields halves(kAll);
  halves.feed(body.substr(0, cut));
  halves.feed(body.substr(cut));
  BodyFields crumbs(kAll);
  for (size_t i = 0; i < body.size() && !crumbs.feed(body.substr(i, 1)); ++i) {
  }
  if (whole.alike() != halves.alike() || whole.alike() != crumbs.alike()) {
    std::abort();
  }
  for (size_t i = 0; i < kAll.size(); ++i) {
    BodyFields alone(kAll.subspan(i, 1));
    alone.feed(body);
    expect_promises(whole[i], body.size());
    expect_same(whole[i], halves[i]);
    expect_same(whole[i], crumbs[i]);
    expect_same(whole[i], alone[0]);
  }
  return 0;
}
