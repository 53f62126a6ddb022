#include "worker/queue/webhooks/signature.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "worker/queue/text/base64.h"

namespace penstock::queue {

std::string webhook_signature(const WebhookSecrets& secrets, std::string_view id, int64_t timestamp,
                              std::string_view body) {
  std::string text(id);
  text.append(".").append(std::to_string(timestamp)).append(".").append(body);
  std::string header;
  for (const std::string& secret : secrets.keys()) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
         reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest, &size);
    header +=
        (header.empty() ? "v1," : " v1,") + base64({reinterpret_cast<const char*>(digest), size});
  }
  return header;
}

}  // namespace penstock::queue
