// AWS Signature Version 4, for S3: what a request needs so that the server knows whose it is.
//
// Ours, and not libcurl's CURLOPT_AWS_SIGV4: that of 7.88 does not sort the query, nor encode it as
// it is signed (https://github.com/curl/curl/issues/9717), and does not take the body's digest of
// us.
//
// Source: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
#pragma once

#include <ctime>
#include <map>
#include <string>
#include <string_view>

namespace penstock::queue {

struct S3Key {
  std::string id;
  std::string secret;
  std::string region;
};

struct S3Request {
  std::string method;                          // "PUT"
  std::string path;                            // of the URL, encoded by s3_encoded
  std::map<std::string, std::string> query;    // not encoded
  std::map<std::string, std::string> headers;  // all that are signed, by lower-case name; host, too
  std::string sha256;                          // of the body, hexadecimal, or "UNSIGNED-PAYLOAD"
};

// All but letters, digits, "-", ".", "_", "~" as %XX; "/" stays if it is a path's.
std::string s3_encoded(std::string_view text, bool is_path = false);
// As it is signed, and goes behind the "?".
std::string s3_query(const S3Request& request);
// "20130524T000000Z"
std::string s3_time(time_t at);

// The value of Authorization. REQUIRES: the headers have x-amz-date, s3_time(at).
std::string s3_authorization(const S3Key& key, const S3Request& request, time_t at);
// Makes the query that of an address by which anybody may make the request for so long.
void s3_presign(const S3Key& key, S3Request& request, time_t at, int seconds);

}  // namespace penstock::queue
