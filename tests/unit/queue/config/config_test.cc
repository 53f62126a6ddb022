#include "worker/queue/config/load_config.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "worker/queue/config/config_section.h"

namespace penstock::queue {
namespace {

// What is wrong with a file of this text; empty when nothing is.
std::string complaint(const std::string& text) {
  const auto config = parse_config(text, "p.yaml");
  return config ? "" : config.error().message;
}

// The same for one worker, on line 3 of a file that is right otherwise.
std::string worker_complaint(const std::string& worker) {
  return complaint("socket: /s\nworkers:\n  - { " + worker + " }\n");
}

Config good(const std::string& text) {
  auto config = parse_config(text, "/etc/penstock/p.yaml");
  EXPECT_TRUE(config) << config.error().message;
  return config ? *std::move(config) : Config{};
}

TEST(ConfigTest, TheShippedFileIsGood) {
  const auto config = load_config(PENSTOCK_SOURCE_DIR "/config/penstock.yaml");
  ASSERT_TRUE(config) << config.error().message;
  ASSERT_EQ(config->workers.size(), 2U);
  EXPECT_EQ(config->workers[1].engine, "process");
  EXPECT_EQ(config->workers[0].model_path, PENSTOCK_SOURCE_DIR "/config/models/demo");
  EXPECT_EQ(config->workers[0].model_name, "demo");
  EXPECT_EQ(config->workers[0].memory_bytes, int64_t{2} << 30);
}

TEST(ConfigTest, ReadsEveryKey) {
  const Config config = good(R"(
socket: /run/p.sock
socket_mode: 0600
socket_group: www-data
state: /var/lib/penstock
worker_binary: /opt/penstock-worker
drain_timeout: 5s
queues:
  video: { max_length: 200, max_per_owner: 20, aging: 3s, deadline: 2h, attempts: 5, backoff: 20ms, keep_results: 1h }
workers:
  - { name: s, engine: simulate, service_time: 20ms, distribution: lognormal, sigma: 0.5,
      tokens_per_second: 50, output_tokens: 9, failure_rate: 0.25, seed: 7, job_memory: 1MiB,
      device: 1, slots: 4, memory: 512MiB, queue: video, threads: 2 }
limits: { max_body: 1MiB, max_held: 2MiB, max_unsent: 3MiB, max_connections: 5,
          heartbeat_timeout: 3s, start_timeout: 4s, worker_grace: 6s, step_timeout: 7s,
          read_timeout: 8s }
webhooks: { secret_file: hook.secret, allow: [10.0.0.0/8, "fd00::/8", hooks.internal] }
)");
  EXPECT_EQ(config.socket_mode, 0600U);
  ASSERT_EQ(config.queues.size(), 2U);
  EXPECT_EQ(config.queues[0], QueueConfig{"default"});
  EXPECT_EQ(config.queues[1], (QueueConfig{.name = "video",
                                           .max_length = 200,
                                           .max_per_owner = 20,
                                           .attempts = 5,
                                           .deadline_ns = 7200 * kNsPerSec,
                                           .backoff_ns = 20 * kNsPerMs,
                                           .keep_results_ns = 3600 * kNsPerSec,
                                           .aging_ns = 3 * kNsPerSec}));
  const WorkerConfig& worker = config.workers.at(0);
  EXPECT_EQ(worker.devices, std::vector<std::string>{"1"});
  EXPECT_EQ(worker.threads, 2U);
  const std::vector<std::pair<std::string, std::string>> options = {{"service_time_ns", "20000000"},
                                                                    {"distribution", "lognormal"},
                                                                    {"sigma", "0.5"},
                                                                    {"tokens_per_second", "50"},
                                                                    {"output_tokens", "9"},
                                                                    {"job_memory", "1048576"},
                                                                    {"failure_rate", "0.25"},
                                                                    {"seed", "7"}};
  EXPECT_EQ(worker.options, options);
  LimitsConfig limits{1 << 20, 2 << 20, 3 << 20, 5, 3 * kNsPerSec, 4 * kNsPerSec, 6 * kNsPerSec};
  limits.step_timeout_ns = 7 * kNsPerSec;
  limits.read_timeout_ns = 8 * kNsPerSec;
  EXPECT_EQ(config.limits, limits);
  EXPECT_EQ(config.webhooks,
            (WebhooksConfig{.secret_file = "/etc/penstock/hook.secret",
                            .allow = {"10.0.0.0/8", "fd00::/8", "hooks.internal"}}));
}

TEST(ConfigTest, WebhooksAreSentWhereTheFileSays) {
  EXPECT_EQ(good("socket: /s\n").webhooks, WebhooksConfig());
  EXPECT_EQ(complaint("socket: /s\nwebhooks: { allow: [10.0.0.0/8, 10.0.0.0/33] }\n"),
            "p.yaml:2: key 'webhooks.allow': '10.0.0.0/33' is no address, block of addresses "
            "(10.0.0.0/8) or name of a host");
  EXPECT_EQ(complaint("socket: /s\nwebhooks: { allow: [[127.0.0.1]] }\n"),
            "p.yaml:2: key 'webhooks.allow': '' is no address, block of addresses (10.0.0.0/8) or "
            "name of a host");
  EXPECT_EQ(complaint("socket: /s\nwebhooks: { allow: 127.0.0.1 }\n"),
            "p.yaml:2: key 'webhooks.allow': must be a list of addresses, blocks (10.0.0.0/8) and "
            "host names");
  EXPECT_EQ(complaint("socket: /s\nwebhooks: { secret: /etc/s }\n"),
            "p.yaml:2: key 'webhooks.secret': unknown key; did you mean 'secret_file'?");
}

TEST(ConfigTest, AModelIsCalledByItsNameItsFolderItsModelOrItsWorker) {
  const Config config = good(R"(
socket: /s
workers:
  - { name: a, engine: llama, model: models/demo/, model_name: chosen }
  - { name: b, engine: llama, model: models/demo/ }
  - { name: c, engine: simulate, model: org/thing }
  - { name: d, engine: simulate }
)");
  EXPECT_EQ(config.workers[0].model_name, "chosen");
  EXPECT_EQ(config.workers[0].model_path, "/etc/penstock/models/demo/");
  EXPECT_EQ(config.workers[1].model_name, "demo");
  EXPECT_EQ(config.workers[2].model_name, "org/thing");
  EXPECT_EQ(config.workers[3].model_name, "d");
}

// Else each of its names would have a bound of its own.
TEST(ConfigTest, ADeviceHasOneName) {
  const Config config = good(R"(
socket: /s
devices: { 07: { slots: 2 }, GPU-AB-0: { slots: 3 } }
workers:
  - { name: a, engine: simulate, device: 007 }
  - { name: b, engine: simulate, device: [MIG-GPU-AB/1/0, "0"] }
)");
  EXPECT_EQ(config.devices.at(0).id, "7");
  EXPECT_EQ(config.devices.at(1).id, "GPU-ab-0");
  EXPECT_EQ(config.workers.at(0).devices, std::vector<std::string>{"7"});
  EXPECT_EQ(config.workers.at(1).devices, (std::vector<std::string>{"MIG-GPU-ab/1/0", "0"}));
}

TEST(ConfigTest, AnUnknownKeyIsNamedWithTheNearestKnownOne) {
  EXPECT_EQ(complaint("sockett: /s\nsocket: /s\n"),
            "p.yaml:1: key 'sockett': unknown key; did you mean 'socket'?");
  EXPECT_EQ(worker_complaint("name: a, engine: simulate, slotz: 4"),
            "p.yaml:3: key 'workers[0].slotz': unknown key; did you mean 'slots'?");
  EXPECT_EQ(complaint("socket: /s\nqueues:\n  default:\n    max_lenght: 4\n"),
            "p.yaml:4: key 'queues.default.max_lenght': unknown key; did you mean 'max_length'?");
}

TEST(ConfigTest, AWrongValueIsShownWithWhatWouldBeRight) {
  EXPECT_EQ(complaint("socket: /s\nqueues: { default: { attempts: many } }\n"),
            "p.yaml:2: key 'queues.default.attempts': 'many' is not a whole number from 1 to 100");
  EXPECT_EQ(complaint("socket: /s\nqueues: { default: { attempts: 0 } }\n"),
            "p.yaml:2: key 'queues.default.attempts': '0' is not a whole number from 1 to 100");
  EXPECT_EQ(complaint("socket: /s\nqueues: { default: { deadline: 10 } }\n"),
            "p.yaml:2: key 'queues.default.deadline': '10' is not a duration; write a whole number "
            "and a unit, like 20ms, 2s, 10m or 24h");
  EXPECT_EQ(worker_complaint("name: a, engine: simulate, memory: 2GB"),
            "p.yaml:3: key 'workers[0].memory': '2GB' is not a size; write a whole number and a "
            "unit, like 512MiB or 2GiB");
  EXPECT_EQ(worker_complaint("name: a, engine: simulate, failure_rate: 1.5"),
            "p.yaml:3: key 'workers[0].failure_rate': '1.5' is not a number from 0 to 1");
  EXPECT_EQ(worker_complaint("name: a, engine: simulate, failure_rate: nan"),
            "p.yaml:3: key 'workers[0].failure_rate': 'nan' is not a number from 0 to 1");
  EXPECT_EQ(worker_complaint("name: a, engine: simulate, distribution: normal"),
            "p.yaml:3: key 'workers[0].distribution': 'normal' is not known; write constant, "
            "exponential or lognormal");
  EXPECT_EQ(worker_complaint("name: a, engine: simulate, device: gpu"),
            "p.yaml:3: key 'workers[0].device': must be auto, cpu, a GPU's number or UUID "
            "(GPU-..., MIG-...), or a list of these, at most 64");
  EXPECT_EQ(worker_complaint("name: a, engine: simulate, gpu_priority: low"),
            "p.yaml:3: key 'workers[0].gpu_priority': is for engine llama, and this worker's is "
            "simulate");
  EXPECT_EQ(worker_complaint("name: a, engine: llama, model: m, gpu_wait: no"),
            "p.yaml:3: key 'workers[0].gpu_wait': 'no' is not known; write awake or asleep");
  EXPECT_EQ(worker_complaint("name: a, engine: simulate, default_max_tokens: 9"),
            "p.yaml:3: key 'workers[0].default_max_tokens': is for engine llama, and this worker's "
            "is simulate");
  EXPECT_EQ(worker_complaint("name: a, engine: llama, model: m, default_max_tokens: 0"),
            "p.yaml:3: key 'workers[0].default_max_tokens': '0' is not a whole number from 1 to "
            "4294967295");
  EXPECT_EQ(worker_complaint("name: a, engine: simulate, slots: 3, max_slots: 5"),
            "p.yaml:3: key 'workers[0].max_slots': is for slots: auto; else `slots` is the most");
  EXPECT_EQ(worker_complaint("name: a, engine: simulate, device: [0, cpu]"),
            "p.yaml:3: key 'workers[0].device': must be auto, cpu, a GPU's number or UUID "
            "(GPU-..., MIG-...), or a list of these, at most 64");
  EXPECT_EQ(worker_complaint("name: a, engine: simulate, device: [0, 1, 0]"),
            "p.yaml:3: key 'workers[0].device': names 0 twice");
  EXPECT_EQ(worker_complaint("name: a, engine: simulate, device: [0, 00]"),
            "p.yaml:3: key 'workers[0].device': names 0 twice");
  EXPECT_EQ(complaint("socket: /s\ndevices: { 0: {}, 00: {} }\n"),
            "p.yaml:2: key 'devices.00': comes twice; keep one");
  EXPECT_EQ(complaint("socket: /s\ndevices: [0]\n"),
            "p.yaml:2: key 'devices': must be a map of keys to values");
  EXPECT_EQ(complaint("socket: /s\ndevices: { fast: { slots: 2 } }\n"),
            "p.yaml:2: key 'devices.fast': must be a GPU's number or UUID, as in a worker's "
            "`device`");
  EXPECT_EQ(complaint("socket: /s\ndevices: { 0: { slots: 0 } }\n"),
            "p.yaml:2: key 'devices.0.slots': '0' is not a whole number from 1 to 65536");
  EXPECT_EQ(complaint("socket: /s\nsocket_mode: 0999\n"),
            "p.yaml:2: key 'socket_mode': must be an octal mode, like 0660");
  EXPECT_EQ(complaint("socket: /s\nlimits: { heartbeat_timeout: 1s }\n"),
            "p.yaml:2: key 'limits.heartbeat_timeout': '1s' is too short; the least is 2s");
  EXPECT_EQ(complaint("socket: /s\nlimits: { keep_dead: 36501d }\n"),
            "p.yaml:2: key 'limits.keep_dead': '36501d' is too long; the most is 36500d");
  EXPECT_EQ(worker_complaint("name: a, engine: simulate, memory: 1025TiB"),
            "p.yaml:3: key 'workers[0].memory': '1025TiB' is out of range; from 1 to "
            "1125899906842624 bytes are possible");
  EXPECT_EQ(complaint("socket: [a, b]\n"), "p.yaml:1: key 'socket': needs a single value");
  EXPECT_EQ(complaint("socket: /s\nqueues: 5\n"),
            "p.yaml:2: key 'queues': must be a map of keys to values");
}

TEST(ConfigTest, WhatIsMissingIsSaid) {
  EXPECT_EQ(complaint("state: /x\n"),
            "p.yaml:1: key 'socket': is missing; write the path of the socket to listen on");
  EXPECT_EQ(worker_complaint("name: a"),
            "p.yaml:3: key 'workers[0].engine': is missing; write engine: llama, http, process "
            "or simulate");
  EXPECT_EQ(worker_complaint("name: a, engine: llama"),
            "p.yaml:3: key 'workers[0].model': is missing; engine llama needs the folder of a "
            "model");
  EXPECT_EQ(worker_complaint("engine: simulate"),
            "p.yaml:3: key 'workers[0].name': is missing; a name is 1 to 39 letters, digits, '_', "
            "'.' or '-', and does not begin with '-'");
}

TEST(ConfigTest, AnEngineThatIsNoneIsTheOnlyFaultThatIsTold) {
  EXPECT_EQ(worker_complaint("name: a, engine: htpp, url: 'http://h', health: /h, slots: auto"),
            "p.yaml:3: key 'workers[0].engine': 'htpp' is not known; write llama, simulate, http "
            "or process; did you mean 'http'?");
  EXPECT_EQ(worker_complaint("name: a, command: [cat], gpu_wait: no, service_time: 1"),
            "p.yaml:3: key 'workers[0].engine': is missing; write engine: llama, http, process "
            "or simulate");
  EXPECT_NE(worker_complaint("name: a, engine: htpp, helth: /h").find("did you mean 'health'?"),
            std::string::npos)
      << "a key that no engine has is one";
}

TEST(ConfigTest, OfSlotsItIsSaidThatTheyMayBeAuto) {
  EXPECT_EQ(worker_complaint("name: a, engine: simulate, slots: many"),
            "p.yaml:3: key 'workers[0].slots': 'many' is not a whole number from 1 to 65536, nor "
            "auto");
}

TEST(ConfigTest, AModelNameThatNobodyCouldAskForIsAnError) {
  EXPECT_EQ(worker_complaint("name: a, engine: simulate, model: " + std::string(129, 'm')),
            "p.yaml:3: key 'workers[0].model': the model's name has 129 bytes; callers can ask for "
            "at most 128; set a model_name");
}

TEST(ConfigTest, AKeyOfAnotherEngineIsNotTaken) {
  EXPECT_EQ(worker_complaint("name: a, engine: llama, model: m, service_time: 1s"),
            "p.yaml:3: key 'workers[0].service_time': is for engine simulate, and this worker's is "
            "llama");
}

TEST(ConfigTest, WorkersHaveDifferentNamesAndQueuesThatExist) {
  EXPECT_EQ(
      complaint("socket: /s\nworkers:\n- {name: a, engine: simulate}\n"
                "- {name: a, engine: simulate}\n"),
      "p.yaml:4: key 'workers[1].name': two workers are called 'a'; the other is at p.yaml:3");
  EXPECT_EQ(
      worker_complaint("name: a, engine: simulate, queue: defalt"),
      "p.yaml:3: key 'workers[0].queue': there is no queue 'defalt'; did you mean 'default'?");
}

TEST(ConfigTest, AKeyThatComesTwiceIsAnError) {
  EXPECT_EQ(complaint("socket: /s\nstate: /a\nstate: /b\n"),
            "p.yaml:3: key 'state': comes twice; keep one");
}

TEST(ConfigTest, ASocketPathThatDoesNotFitIsAnError) {
  EXPECT_EQ(complaint("socket: /" + std::string(107, 'a') + "\n"),
            "p.yaml:1: key 'socket': the path has 108 bytes; a socket's path has at most 107");
  EXPECT_EQ(complaint("socket: /" + std::string(106, 'a') + "\n"), "");
}

TEST(ConfigTest, AllComplaintsAreSaidInTheOrderOfLines) {
  EXPECT_EQ(complaint("state: [1]\nsocket: /s\nlimit: 5\n"),
            "p.yaml:1: key 'state': needs a single value\n"
            "p.yaml:3: key 'limit': unknown key; did you mean 'limits'?");
}

TEST(ConfigTest, WhatIsNotYamlIsSaidWithItsLine) {
  EXPECT_EQ(complaint("socket: /s\nqueues: {\n").substr(0, 9), "p.yaml:3:");
  EXPECT_EQ(complaint("just words"),
            "p.yaml:1: must be a map of keys to values\n"
            "p.yaml:1: key 'socket': is missing; write the path of the "
            "socket to listen on");
}

TEST(ConfigTest, AFileThatIsNotThereIsNamed) {
  const auto config = load_config("/nowhere/p.yaml");
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().message, "/nowhere/p.yaml: cannot be read: No such file or directory");
}

TEST(ConfigTest, AccessNamesUsersAndGroupsThatExist) {
  EXPECT_EQ(complaint("socket: /s\naccess: { operators: [root, 1000], edges: [daemon] }\n"), "");
  EXPECT_EQ(complaint("socket: /s\naccess:\n  operators: [no-such-user]\n"),
            "p.yaml:3: key 'access.operators': there is no user and no group 'no-such-user'");
  EXPECT_EQ(
      complaint("socket: /s\naccess:\n  edges: www-data\n"),
      "p.yaml:3: key 'access.edges': must be a list of users and groups, 1 to 64 of them, like "
      "[root, www-data]");
  EXPECT_EQ(complaint("socket: /s\naccess:\n  admins: [root]\n").substr(0, 46),
            "p.yaml:3: key 'access.admins': unknown key; di");
}

TEST(ConfigTest, SurvivesDeepNesting) {
  EXPECT_NE(complaint(std::string(100'000, '[')), "");
  EXPECT_NE(complaint("socket: " + std::string(100'000, '{')), "");
  std::string steps;
  for (size_t depth = 0; depth < 1'000; ++depth) {
    steps += std::string(depth, ' ') + "a:\n";
  }
  EXPECT_NE(complaint(steps), "");
}

TEST(ConfigTest, SurvivesAliasesOfAliases) {
  std::string bomb = "socket: /s\na: &a [x, x, x, x, x, x, x, x]\n";
  for (char name = 'b'; name < 'z'; ++name) {
    const std::string last = "*" + std::string(1, static_cast<char>(name - 1));
    bomb += std::string(1, name) + ": &" + name + " [" + last;
    for (int i = 0; i < 7; ++i) {
      bomb += ", " + last;
    }
    bomb += "]\n";
  }
  EXPECT_NE(complaint(bomb + "queues: *y\nworkers: *y\n"), "");
}

TEST(ConfigTest, MergeKeysBringInWhatIsNotThereItself) {
  const Config config = good(R"(socket: /s
queues: { a: &long { deadline: 2h, attempts: 7 }, b: { <<: *long, attempts: 2 } }
workers:
  - &base { name: one, engine: simulate, slots: 4, queue: a }
  - { <<: *base, name: two }
  - { name: three, <<: [ { slots: 9, memory: 1GiB }, *base ], queue: b }
)");
  EXPECT_EQ(config.queues[2].deadline_ns, 7200 * kNsPerSec);
  EXPECT_EQ(config.queues[2].attempts, 2U);
  ASSERT_EQ(config.workers.size(), 3U);
  EXPECT_EQ(config.workers[1].name, "two");
  EXPECT_EQ(config.workers[1].slots, 4U);
  EXPECT_EQ(config.workers[2].slots, 9U) << "the first of the list counts";
  EXPECT_EQ(config.workers[2].engine, "simulate");
  EXPECT_EQ(config.workers[2].memory_bytes, int64_t{1} << 30);
  EXPECT_EQ(config.workers[2].queue, "b");
}

TEST(ConfigTest, WhatIsWrongWithAMergeIsSaid) {
  EXPECT_EQ(complaint("socket: /s\n<<: 7\n"),
            "p.yaml:2: key '<<': must be a map's alias, as *base, or a list of such");
  EXPECT_EQ(complaint("socket: /s\nlimits:\n  <<: [[]]\n"),
            "p.yaml:3: key 'limits.<<': must be a map's alias, as *base, or a list of such");
  EXPECT_EQ(complaint("socket: /s\nlimits: { <<: { max_bodi: 1 } }\n").substr(0, 45),
            "p.yaml:2: key 'limits.max_bodi': unknown key;");
  EXPECT_EQ(complaint("socket: /s\nlimits: { <<: { max_body: 1, max_body: 2 } }\n"),
            "p.yaml:2: key 'limits.max_body': comes twice; keep one");
  EXPECT_NE(complaint("socket: /s\nlimits: { <<: {}, <<: {} }\n").find("twice"), std::string::npos);
}

TEST(ConfigTest, AMapThatMergesItselfEnds) {
  EXPECT_NE(complaint("socket: /s\nlimits: &a { <<: *a }\n").find("or itself"), std::string::npos);
  EXPECT_NE(complaint("socket: /s\nlimits: &a { <<: [*a, *a] }\n").find("itself"),
            std::string::npos);
}

TEST(ConfigTest, MergesThatBlowUpAreBounded) {
  std::string text = "socket: /s\nlimits: { <<: { a0: &a0 { k: 1 }";
  for (int i = 1; i < 15; ++i) {
    const std::string before = "*a" + std::to_string(i - 1);
    text += ", a" + std::to_string(i) + ": &a" + std::to_string(i) + " { <<: [";
    for (int n = 0; n < 10; ++n) {
      text += before + (n < 9 ? ", " : "] }");
    }
  }
  EXPECT_NE(complaint(text + " } }\nqueues: { b: { <<: *a14 } }\n").find("more than 1000 keys"),
            std::string::npos);
  std::string wide = "socket: /s\nworkers:\n  - &w { name: a";
  for (int i = 0; i < 20'000; ++i) {
    wide += ", k" + std::to_string(i) + ": 1";
  }
  wide += " }\n";
  for (int i = 0; i < 255; ++i) {
    wide += "  - *w\n";
  }
  EXPECT_NE(complaint(wide).find("more than 1000 keys"), std::string::npos);
}

TEST(ConfigTest, ASecondDocumentIsAnError) {
  EXPECT_EQ(complaint("---\nsocket: /s\n---\nsocket: /t\n"),
            "p.yaml:4: a second YAML document (---) begins; a configuration is one");
  EXPECT_NE(complaint("socket: /s\n...\n---\n- a\n").find("second YAML document"),
            std::string::npos);
  EXPECT_EQ(complaint("---\nsocket: /s\n---\n"), "") << "there is nothing in it";
  EXPECT_NE(complaint("socket: /s\n---\n[").find("not YAML"), std::string::npos);
}

TEST(ConfigTest, WhatNothingBeganEndsNoDocumentForEver) {
  for (const char* const text : {",socket: /s\n", "}\n", "socket: /s\n---\n]\n", ", ,\n"}) {
    EXPECT_NE(complaint(text).find("not YAML"), std::string::npos) << complaint(text);
  }
}

TEST(ConfigTest, AKeyThatComesTwiceIsAnErrorWhereverItIs) {
  for (const char* text :
       {"socket: /s\nqueues: { a: {}, a: {} }\n",
        "socket: /s\nqueues: { a: { attempts: 1, attempts: 2 } }\n",
        "socket: /s\ndevices: { 0: {}, 0: {} }\n",
        "socket: /s\nwebhooks: { allow: [], allow: [] }\n", "socket: /s\n\"socket\": /s\n"}) {
    EXPECT_NE(complaint(text).find("comes twice; keep one"), std::string::npos) << text;
  }
}

TEST(SettingsTest, TellWhatIsInForceWithWhatIsLeftOut) {
  const std::string text = good(R"(
socket: /s
limits: { max_held: 2048MiB }
workers: [ { name: chat, engine: http, url: "http://127.0.0.1:8000", headers: { X-Key: hush } } ]
)")
                               .settings.text();
  for (const char* const line :
       {"limits.max_held: 2GiB\n", "limits.max_body: 32MiB  # not written\n",
        "queues.default.deadline: 10m  # not written\n", "socket_mode: 0660  # not written\n",
        "workers.chat.url: http://127.0.0.1:8000\n"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  }
  EXPECT_EQ(text.find("hush"), std::string::npos) << text;
  // What an engine has its own default for, and what is of another engine.
  for (const char* const key : {"linger", "max_answer", "service_time", "seed", "max_workers",
                                "target_wait", "lenient", "scratch"}) {
    EXPECT_EQ(text.find(std::string("workers.chat.") + key), std::string::npos) << text;
  }
}

TEST(ConfigTest, WhatRequestsMayHoldIsForEnginesThatReadThem) {
  const auto with = [](const std::string& engine) {
    return "socket: /s\nworkers: [ { name: w, " + engine + ", steering: true } ]\n";
  };
  EXPECT_EQ(complaint(with("engine: simulate")), "");
  EXPECT_NE(complaint(with("engine: http, url: \"http://127.0.0.1:1\""))
                .find("is for engines llama and simulate, and this worker's is http"),
            std::string::npos);
}

TEST(SettingsTest, ChangesAreTold) {
  const auto settings = [](const std::string& more) {
    return good("socket: /s\n" + more).settings;
  };
  const Settings before = settings(
      "limits: { max_held: 1GiB }\nworkers: [ { name: a, engine: simulate, slots: 2 } ]\n");
  EXPECT_TRUE(settings("workers: [ { name: a, slots: 2, engine: simulate } ]\n")
                  .changes_since(before)
                  .empty());
  EXPECT_EQ(settings("limits: { max_held: 2GiB }\nworkers: [ { name: b, engine: simulate } ]\n")
                .changes_since(before),
            (std::vector<std::string>{
                "workers.a.engine: gone (was simulate)", "workers.a.name: gone (was a)",
                "workers.a.slots: gone (was 2)", "limits.max_held: 2GiB (was 1GiB)",
                "workers.b.engine: simulate (new)", "workers.b.name: b (new)"}));
}

TEST(SettingsTest, AreBoundedHoweverOftenALongValueIsRepeated) {
  std::string file =
      "socket: /s\nstate: &long " + std::string(100'000, 'x') + "\nwebhooks: { allow: [";
  for (int i = 0; i < 10'000; ++i) {
    file += "*long,";
  }
  Complaints complaints("p.yaml");
  const YAML::Node root = YAML::Load(file + "] }\n");
  Section(root["webhooks"], "webhooks", complaints).take("allow");
  EXPECT_LT(complaints.settings().text().size(), 5000U);
}

TEST(ConfigTest, RefusesAFileThatIsTooLarge) {
  EXPECT_EQ(complaint(std::string(kMaxConfigBytes + 1, ' ')),
            "p.yaml: the file has 1048577 bytes; a configuration has at most 1048576");
}

TEST(ConfigTest, TheNumberOfComplaintsIsBounded) {
  std::string text;
  for (int i = 0; i < 1'000; ++i) {
    text += "unknown" + std::to_string(i) + ": 1\n";
  }
  const std::string all = complaint(text);
  EXPECT_EQ(std::count(all.begin(), all.end(), '\n'), 19);
}

}  // namespace
}  // namespace penstock::queue
