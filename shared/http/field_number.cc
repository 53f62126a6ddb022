#include <limits>

#include "shared/http/body_fields.h"
#include "shared/http/json_number.h"

namespace penstock::http {

double number_of(const BodyField& field) noexcept {
  switch (field.type) {
    case BodyField::Type::kNumber:
      return field.text.empty() ? std::numeric_limits<double>::infinity() : to_double(field.text);
    case BodyField::Type::kString:
      return string_to_double(field.text);
    case BodyField::Type::kBoolean:
      return field.text == "true" ? 1 : 0;
    default:
      return std::numeric_limits<double>::quiet_NaN();
  }
}

}  // namespace penstock::http
