#include "worker/queue/config/http_keys.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "worker/queue/config/load_config.h"
#include "worker/queue/config/scaled_workers.h"
#include "worker/queue/process/worker_command.h"

namespace penstock::queue {
namespace {

std::string complaint(const std::string& keys) {
  const auto config =
      parse_config("socket: /s\nworkers:\n  - { name: a, model: m, " + keys + " }\n", "p.yaml");
  return config ? "" : config.error().message;
}

WorkerConfig good(const std::string& keys) {
  const auto config =
      parse_config("socket: /s\nworkers:\n  - { name: a, model: m, engine: http, " + keys + " }\n",
                   "/etc/penstock/p.yaml");
  EXPECT_TRUE(config) << config.error().message;
  return config ? config->workers.at(0) : WorkerConfig{};
}

TEST(HttpKeysTest, KeysBecomeOptionsInTheWorkersUnits) {
  const WorkerConfig worker = good(
      "url: 'http://h:1', upstream_model: org/x, protocol: kserve, health: /h, key_file: k, "
      "ca: /c, timeouts: { idle: 400ms, after_finish: 2s }, backoff: { first: 1s }, linger: 0, "
      "max_hold: 1m, max_answer: 16MiB, max_error_body: 1KiB");
  const std::map<std::string, std::string> options(worker.options.begin(), worker.options.end());
  EXPECT_EQ(options, (std::map<std::string, std::string>{{"upstream_model", "org/x"},
                                                         {"protocol", "kserve"},
                                                         {"health", "/h"},
                                                         {"key_file", "/etc/penstock/k"},
                                                         {"ca", "/c"},
                                                         {"idle_ns", "400000000"},
                                                         {"after_finish_ns", "2000000000"},
                                                         {"backoff_first_ns", "1000000000"},
                                                         {"linger_ns", "0"},
                                                         {"max_hold_ns", "60000000000"},
                                                         {"max_answer", "16777216"},
                                                         {"max_error_body", "1024"}}));
}

TEST(HttpKeysTest, EachUrlIsADeviceWithAProcess) {
  const WorkerConfig worker = good("url: ['http://h:1', 'unix:/run/a.sock'], slots: 4");
  EXPECT_EQ(worker.devices, (std::vector<std::string>{"http://h:1", "unix:/run/a.sock"}));
  EXPECT_FALSE(worker.may_use_a_gpu());
  Scaling scaling;
  auto processes = scaled_workers({worker}, scaling);
  ASSERT_EQ(processes.size(), 2U);
  processes[1].device = worker.devices[1];
  const auto command = worker_command("/w", processes[1], {});
  EXPECT_NE(std::find(command.begin(), command.end(), "url=unix:/run/a.sock"), command.end());
}

TEST(HttpKeysTest, HeadersAreInTheEnvironmentAndNowhereElse) {
  WorkerConfig worker = good("url: 'http://h:1', headers: { X-A: secret, X-B: '2' }");
  worker.device = worker.devices.front();
  EXPECT_EQ(*worker_environment(worker),
            std::vector<std::string>{"PENSTOCK_HEADERS=X-A: secret\nX-B: 2\n"});
  for (const std::string& word : worker_command("/w", worker, {})) {
    EXPECT_EQ(word.find("secret"), word.npos);
  }
}

TEST(HttpKeysTest, WhatIsWrongIsSaidWithWhatWouldBeRight) {
  const std::string at = "p.yaml:3: key 'workers[0].";
  EXPECT_EQ(complaint("engine: http"),
            at + "url': is missing; engine http needs url: \"http://127.0.0.1:8000\"");
  for (const char* const url : {"h:1", "'ftp://h'", "'http://'", "'http:///x'", "'unix:run'"}) {
    EXPECT_EQ(complaint(std::string("engine: http, url: ") + url),
              at + "url': must be http://HOST:PORT, https://HOST or unix:/path/of.sock, or a list "
                   "of these");
  }
  EXPECT_EQ(complaint("engine: http, url: 'http://u:p@h'"),
            at + "url': holds a password, which everyone can read who sees the process; use "
                 "key_file");
  EXPECT_EQ(complaint("engine: http, url: ['http://h', 'http://h']"),
            at + "url': names http://h twice");
  EXPECT_EQ(complaint("engine: http, url: []"), at + "url': must be an url, or a list of 1 to 64");
  EXPECT_EQ(complaint("engine: http, url: 'http://h', device: 0"),
            at + "device': is not for engine http: its jobs run behind the url");
  EXPECT_EQ(complaint("engine: http, url: 'http://h', health: health"),
            at + "health': must be a path, like /health");
  EXPECT_EQ(complaint("engine: http, url: 'http://h', timeouts: { idel: 1s }"),
            at + "timeouts.idel': unknown key; did you mean 'idle'?");
  EXPECT_EQ(complaint("engine: http, url: 'http://h', headers: { 'a b': c }"),
            at + "headers': must be a map of at most 32 headers, each a name and one line of "
                 "printable text");
  EXPECT_EQ(complaint("engine: simulate, url: 'http://h'"),
            at + "url': is for engine http, and this worker's is simulate");
}

}  // namespace
}  // namespace penstock::queue
