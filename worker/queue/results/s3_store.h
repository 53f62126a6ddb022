// S3Store: a bucket of an S3-compatible server, by libcurl. Addresses are path-style:
// URL/BUCKET/NAME.
//
// Each body is signed with its digest, so the server refuses what it has not got as it was sent. A
// file larger than a part goes up in parts (multipart upload): it is there once all of them are,
// and parts of an upload that fails are removed, or by the bucket's own rule for incomplete
// uploads.
//
// A request that the server did not answer, or answered by 429 or 5xx, is made again; all of them
// may be. Redirects are not followed, and no proxy of the environment is used.
//
// Source: https://docs.aws.amazon.com/AmazonS3/latest/API/
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "shared/http/curl.h"
#include "worker/queue/results/result_store.h"
#include "worker/queue/results/s3_signature.h"

namespace penstock::queue {

class S3Store final : public ResultStore {
 public:
  struct Settings {
    std::string url;  // "https://s3.eu-central-1.amazonaws.com", without a path
    std::string bucket;
    std::string prefix;  // of each name: "results/"
    S3Key key;
    uint64_t part_bytes = 16U << 20;  // 5 MiB at least, as servers ask for
    unsigned tries = 3;
    long pause_ms = 200;  // before the second try, and twice as long before each that follows
    long connect_ms = 5000;
    long silent_s = 30;  // a request in which nothing is moved for so long has failed
  };
  explicit S3Store(Settings settings);

  // An address by which anybody may read the result for so long.
  std::string url_of(const std::string& name, int seconds) const;

 private:
  // Of a file, or of a text.
  struct Body {
    int file = -1;
    uint64_t first = 0, bytes = 0;
    std::string text;
    std::string sha256;  // of the file's part; empty: it is computed
  };
  struct Asked {
    std::string method, name;
    std::map<std::string, std::string> query;
    Body body;
    std::string range;
    const Take* take = nullptr;  // what comes, if the answer is a good one
  };
  struct Answer {
    long status = 0;  // 0: none
    std::string etag;
    std::string text;      // the beginning of what was not taken
    uint64_t bytes = 0;    // that were taken
    bool stopped = false;  // no more was wanted
    std::string error;     // of the connection
  };
  struct Transfer;

  Status put_file(const StoredResult& result, int file) override;
  Status read_part(const std::string& name, uint64_t first, uint64_t bytes,
                   const Take& take) override;
  Status remove_file(const std::string& name) override;

  Status put_parts(const StoredResult& result, int file, const std::string& upload);
  Answer ask(const Asked& asked);
  Answer ask_once(const Asked& asked);
  Error error_of(const Asked& asked, const Answer& answer) const;
  std::string path_of(const std::string& name) const;
  std::string host() const { return settings_.url.substr(settings_.url.find("://") + 3); }

  const Settings settings_;
  curl::Easy easy_;  // keeps its connection
};

}  // namespace penstock::queue
