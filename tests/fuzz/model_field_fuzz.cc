// Any body, cut anywhere: the model found must not depend on where it was cut.
#include <cstdlib>
#include <string>

#include "shared/http/model_field.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) {
    return 0;
  }
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t cut = body.empty() ? 0 : data[0] % body.size();
  penstock::http::ModelField whole;
  whole.feed(body);
  penstock::http::ModelField parts;
  parts.feed(body.substr(0, cut));
  parts.feed(body.substr(cut));
  if (whole.value() != parts.value()) {
    std::abort();
  }
  return 0;
}
