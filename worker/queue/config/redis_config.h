// The Redis by which hosts share queues: `redis` of penstock.yaml.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace penstock::queue {

struct RedisConfig {
  struct At {
    std::string path;  // of a Unix socket; empty: TCP
    std::string host;  // its number, or a name
    int port = 0;
    bool operator==(const At&) const = default;
  };
  std::vector<At> at;  // one Redis; Sentinels; several nodes of a cluster. Empty: there is none
  int database = 0;
  std::string sentinel;  // the name that Sentinels know the master by; empty: they are none
  std::string user;
  std::string password_file;  // empty: no password
  std::string prefix = "penstock";
  std::string host;       // what people call this one
  uint32_t replicas = 0;  // that must have what is promised, beside the master; 0: its disk has it
  uint32_t events = 0;    // how many ends of jobs its feed keeps; 0: it has none
  bool operator==(const RedisConfig&) const = default;
};

}  // namespace penstock::queue
