// Where results lie that are too large for Redis: `results` of penstock.yaml.
#pragma once

#include <cstdint>
#include <string>

namespace penstock::queue {

struct ResultsConfig {
  std::string s3;      // the URL of an S3-compatible server; empty: there is none
  std::string bucket;  // of it
  std::string region;
  std::string key_file;                     // "ID:SECRET"
  std::string folder;                       // that all hosts have; empty: there is none
  std::string prefix = "penstock/";         // of the names in a bucket
  int64_t from_bytes = int64_t{256} << 10;  // a result of that size goes there
  bool redirect = false;                    // callers are sent to the bucket, by a signed address
  bool operator==(const ResultsConfig&) const = default;

  bool is_there() const noexcept { return !s3.empty() || !folder.empty(); }
};

}  // namespace penstock::queue
