#include "worker/queue/results/s3_signature.h"

#include "shared/base/hmac.h"
#include "shared/base/utc.h"
#include "worker/queue/results/sha256.h"

namespace penstock::queue {
namespace {

constexpr char kAlgorithm[] = "AWS4-HMAC-SHA256";

std::string_view text_of(const Digest& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

// Where and when a signature holds.
std::string scope_of(const S3Key& key, time_t at) {
  return s3_time(at).substr(0, 8) + "/" + key.region + "/s3/aws4_request";
}

std::string names_of(const S3Request& request) {
  std::string names;
  for (const auto& [name, value] : request.headers) {
    names += (names.empty() ? "" : ";") + name;
  }
  return names;
}

std::string signature_of(const S3Key& key, const S3Request& request, time_t at) {
  std::string canonical = request.method + "\n" + request.path + "\n" + s3_query(request) + "\n";
  for (const auto& [name, value] : request.headers) {
    canonical.append(name).append(":").append(value).append("\n");
  }
  canonical.append("\n").append(names_of(request)).append("\n").append(request.sha256);
  const std::string text = std::string(kAlgorithm) + "\n" + s3_time(at) + "\n" + scope_of(key, at) +
                           "\n" + Sha256::of(canonical);
  Digest digest = hmac("AWS4" + key.secret, s3_time(at).substr(0, 8));
  for (const std::string_view step : {std::string_view(key.region), std::string_view("s3"),
                                      std::string_view("aws4_request"), std::string_view(text)}) {
    digest = hmac(text_of(digest), step);
  }
  return hex_of(digest);
}

}  // namespace

std::string s3_encoded(std::string_view text, bool is_path) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
        c == '.' || c == '_' || c == '~' || (is_path && c == '/')) {
      encoded.push_back(c);
    } else {
      encoded.push_back('%');
      encoded.push_back(kDigits[byte >> 4U]);
      encoded.push_back(kDigits[byte & 0xFU]);
    }
  }
  return encoded;
}

// The names here sort as their encoded forms do.
std::string s3_query(const S3Request& request) {
  std::string text;
  for (const auto& [name, value] : request.query) {
    text += (text.empty() ? "" : "&") + s3_encoded(name) + "=" + s3_encoded(value);
  }
  return text;
}

std::string s3_time(time_t at) { return utc_text(at, kBasicIsoUtc); }

std::string s3_authorization(const S3Key& key, const S3Request& request, time_t at) {
  return std::string(kAlgorithm) + " Credential=" + key.id + "/" + scope_of(key, at) +
         ",SignedHeaders=" + names_of(request) + ",Signature=" + signature_of(key, request, at);
}

void s3_presign(const S3Key& key, S3Request& request, time_t at, int seconds) {
  request.sha256 = "UNSIGNED-PAYLOAD";
  request.query["X-Amz-Algorithm"] = kAlgorithm;
  request.query["X-Amz-Credential"] = key.id + "/" + scope_of(key, at);
  request.query["X-Amz-Date"] = s3_time(at);
  request.query["X-Amz-Expires"] = std::to_string(seconds);
  request.query["X-Amz-SignedHeaders"] = names_of(request);
  request.query["X-Amz-Signature"] = signature_of(key, request, at);
}

}  // namespace penstock::queue
