#include "worker/queue/results/s3_signature.h"

#include <gtest/gtest.h>

#include <string>

#include "worker/queue/results/sha256.h"

namespace penstock::queue {
namespace {

constexpr time_t kAt = 1369353600;  // 2013-05-24T00:00:00Z
const S3Key kKey{"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1"};
constexpr char kHost[] = "examplebucket.s3.amazonaws.com";

std::string signature(S3Request request, std::string_view body = {}) {
  request.sha256 = Sha256::of(body);
  request.headers["host"] = kHost;
  request.headers["x-amz-date"] = s3_time(kAt);
  request.headers["x-amz-content-sha256"] = request.sha256;
  const std::string text = s3_authorization(kKey, request, kAt);
  return text.substr(text.find("Signature=") + 10);
}

// The examples of https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
TEST(S3SignatureTest, OfAPartIsTheOneThatS3Shows) {
  EXPECT_EQ(signature({.method = "GET", .path = "/test.txt", .headers = {{"range", "bytes=0-9"}}}),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

TEST(S3SignatureTest, OfAnObjectThatIsPutIsTheOneThatS3Shows) {
  EXPECT_EQ(signature({.method = "PUT",
                       .path = s3_encoded("/test$file.text", true),
                       .headers = {{"date", "Fri, 24 May 2013 00:00:00 GMT"},
                                   {"x-amz-storage-class", "REDUCED_REDUNDANCY"}}},
                      "Welcome to Amazon S3."),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

TEST(S3SignatureTest, OfAQueryIsTheOneThatS3Shows) {
  EXPECT_EQ(signature({.method = "GET", .path = "/", .query = {{"lifecycle", ""}}}),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
  EXPECT_EQ(
      signature({.method = "GET", .path = "/", .query = {{"prefix", "J"}, {"max-keys", "2"}}}),
      "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

// https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
TEST(S3SignatureTest, OfAnAddressIsTheOneThatS3Shows) {
  S3Request request{.method = "GET", .path = "/test.txt", .headers = {{"host", kHost}}};
  s3_presign(kKey, request, kAt, 86400);
  EXPECT_EQ(request.query["X-Amz-Signature"],
            "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
  EXPECT_NE(s3_query(request).find("X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2F"
                                   "s3%2Faws4_request&"),
            std::string::npos);
}

TEST(S3SignatureTest, QueriesAreSortedAndEncoded) {
  const S3Request request{.query = {{"uploadId", "a/b+c d~"}, {"partNumber", "1"}}};
  EXPECT_EQ(s3_query(request), "partNumber=1&uploadId=a%2Fb%2Bc%20d~");
  EXPECT_EQ(s3_encoded("/a b/\xC3\xA4", true), "/a%20b/%C3%A4");
}

}  // namespace
}  // namespace penstock::queue
