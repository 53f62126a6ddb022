// Webhook signatures: Standard Webhooks 1.0.0, symmetric.
//
//   webhook-signature: v1,BASE64(HMAC-SHA256(secret, "ID.TIMESTAMP.BODY"))
//
// Source:
// https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "worker/queue/config/webhook_secrets.h"

namespace penstock::queue {

// The header's value: one signature by each secret. `timestamp` in seconds since 1970.
std::string webhook_signature(const WebhookSecrets& secrets, std::string_view id, int64_t timestamp,
                              std::string_view body);

}  // namespace penstock::queue
