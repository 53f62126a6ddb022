// Idempotency-Key: a structured field that is a String (RFC 9651, section 3.3.3;
// draft-ietf-httpapi-idempotency-key-header).
//
//   Idempotency-Key: "8e03978e-40d5-43e8-bc93-6894a57f9324"
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "shared/base/result.h"

namespace penstock::http {

constexpr size_t kMaxIdempotencyKey = 255;

// The key without its quotes and escapes; well-formed parameters behind it are passed over. The
// error says what is wrong and what would be right.
Result<std::string> parse_idempotency_key(std::string_view text);

}  // namespace penstock::http
