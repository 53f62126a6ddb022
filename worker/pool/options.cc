#include "worker/pool/options.h"

#include <getopt.h>

#include <string_view>

namespace penstock {

const char kUsage[] =
    "usage: penstock-worker --name NAME --engine llama|http|process|simulate [options]\n"
    "       penstock-worker --watch-devices [--fd N]\n"
    "       penstock-worker --version | -V\n"
    "\n"
    "Runs jobs that penstockd sends over a socket. penstockd starts it; see PROTOCOL.md.\n"
    "With --watch-devices it runs none, and tells penstockd of the GPUs, by NVML.\n"
    "\n"
    "  --fd N               the socket (default 3)\n"
    "  --connect SOCKET     or penstockd's own, as a worker that penstock.yaml calls external\n"
    "  --name NAME          this worker, as in penstock.yaml\n"
    "  --engine ENGINE      llama, http, process, simulate\n"
    "  --model MODEL        what the engine loads: for llama, a Hugging Face directory\n"
    "  --model-name NAME    what callers name (default: the last part of MODEL)\n"
    "  --slots N            jobs that run at once (default 1)\n"
    "  --memory BYTES       what they may hold on the device together (default 0: no bound)\n"
    "  --claim-memory       penstockd grants it job by job, as others share the device\n"
    "  --max-body BYTES     the largest request body penstockd lets through (default 32 MiB)\n"
    "  --device DEVICE      auto, cpu, or a GPU's number (default auto)\n"
    "  --threads N          CPU threads (default 0: one a core)\n"
    "  --option KEY=VALUE   for the engine; may come several times. Of all engines:\n"
    "                       lenient=true: fields of requests that nobody knows are passed over,\n"
    "                       steering=true: requests may use logit_bias, frequency_penalty and\n"
    "                       presence_penalty\n"
    "  --log-level LEVEL    debug, info, warn or error (default info)\n"
    "  --log-format FORMAT  text or json (default text)\n"
    "  --check-device       only see whether the engine's device works: exit status 0 or 1\n"
    "\n"
    "Exit status: 0 told to end, or penstockd has gone; 1 its engine, device or connection\n"
    "failed; 2 wrong options; 10 an operator has drained a worker that others start (penstockctl\n"
    "drain, scale): it is to be started again after `penstockctl scale`, not before.\n";

namespace {

enum Option {
  kFd = 1,
  kConnect,
  kName,
  kEngine,
  kModel,
  kModelName,
  kSlots,
  kMemory,
  kMaxBody,
  kDevice,
  kThreads,
  kOption,
  kClaimMemory,
  kCheckDevice,
  kWatchDevices,
  kLogLevel,
  kLogFormat,
  kHelp
};

constexpr option kLong[] = {{"fd", 1, nullptr, kFd},
                            {"connect", 1, nullptr, kConnect},
                            {"name", 1, nullptr, kName},
                            {"engine", 1, nullptr, kEngine},
                            {"model", 1, nullptr, kModel},
                            {"model-name", 1, nullptr, kModelName},
                            {"slots", 1, nullptr, kSlots},
                            {"memory", 1, nullptr, kMemory},
                            {"max-body", 1, nullptr, kMaxBody},
                            {"device", 1, nullptr, kDevice},
                            {"threads", 1, nullptr, kThreads},
                            {"option", 1, nullptr, kOption},
                            {"claim-memory", 0, nullptr, kClaimMemory},
                            {"check-device", 0, nullptr, kCheckDevice},
                            {"watch-devices", 0, nullptr, kWatchDevices},
                            {"log-level", 1, nullptr, kLogLevel},
                            {"log-format", 1, nullptr, kLogFormat},
                            {"help", 0, nullptr, kHelp},
                            {nullptr, 0, nullptr, 0}};

template <typename T>
Status number(const char* name, std::string_view text, T least, T most, T& out) {
  if (parse_number(text, least, most, out)) {
    return Ok{};
  }
  return Error{std::string("--") + name + " must be a number from " + std::to_string(least) +
               " to " + std::to_string(most) + ", not \"" + std::string(text) + "\""};
}

Status set_text(int which, const char* value, WorkerOptions& out) {
  std::string& field = which == kName     ? out.name
                       : which == kEngine ? out.engine
                       : which == kModel  ? out.model
                       : which == kDevice ? out.device
                                          : out.model_name;
  field = value;
  return Ok{};
}

Status set_option(std::string_view text, WorkerOptions& out) {
  const size_t equals = text.find('=');
  if (equals == text.npos || equals == 0) {
    return Error{"--option must be KEY=VALUE, not \"" + std::string(text) + "\""};
  }
  const std::string_view key = text.substr(0, equals);
  const std::string_view value = text.substr(equals + 1);
  if (key == "lenient" || key == "steering") {
    (key == "lenient" ? out.lenient : out.steering) = value == "true";
    return value == "true" || value == "false"
               ? Status(Ok{})
               : Error{"--option " + std::string(key) + " must be true or false, not \"" +
                       std::string(value) + "\""};
  }
  out.engine_options[std::string(key)] = value;
  return Ok{};
}

Status set_log_option(int which, std::string_view value, LogSettings& out) {
  const auto level = log_level_named(value);
  const auto format = log_format_named(value);
  if (which == kLogLevel ? !level : !format) {
    return Error{which == kLogLevel
                     ? "--log-level must be debug, info, warn or error, not \"" +
                           std::string(value) + "\""
                     : "--log-format must be text or json, not \"" + std::string(value) + "\""};
  }
  which == kLogLevel ? void(out.level = *level) : void(out.format = *format);
  return Ok{};
}

Status set(int which, const char* value, WorkerOptions& out) {
  switch (which) {
    case kFd:
      return number("fd", value, 0, 1 << 20, out.fd);
    case kConnect:
      out.connect = value;
      return Ok{};
    case kSlots:
      return number<uint32_t>("slots", value, 1, 65536, out.slots);
    case kMemory:
      return number<int64_t>("memory", value, 0, INT64_MAX, out.memory_bytes);
    case kMaxBody:
      return number<uint64_t>("max-body", value, 0, 1U << 31, out.max_body_bytes);
    case kThreads:
      return number("threads", value, 0, 4096, out.threads);
    case kOption:
      return set_option(value, out);
    case kClaimMemory:
      out.claims_memory = true;
      return Ok{};
    case kCheckDevice:
      out.check_device = true;
      return Ok{};
    case kWatchDevices:
      out.watch_devices = true;
      return Ok{};
    case kLogLevel:
    case kLogFormat:
      return set_log_option(which, value, out.log);
    case kHelp:
      out.help = true;
      return Ok{};
    default:
      return set_text(which, value, out);
  }
}

Status check(WorkerOptions& options) {
  int ordinal = 0;
  if (options.watch_devices) {
    return Ok{};
  }
  if (options.name.empty() || options.engine.empty()) {
    return Error{options.name.empty() ? "--name is missing" : "--engine is missing"};
  }
  if (options.device != "auto" && options.device != "cpu" &&
      !number("device", options.device, 0, 1024, ordinal)) {
    return Error{"--device must be auto, cpu or a GPU's number, not \"" + options.device + "\""};
  }
  if (options.model_name.empty()) {
    const size_t end = options.model.find_last_not_of('/') + 1;
    const size_t slash = options.model.find_last_of('/', end == 0 ? 0 : end - 1);
    const size_t start = slash == std::string::npos ? 0 : slash + 1;
    options.model_name = end > start ? options.model.substr(start, end - start) : options.name;
  }
  return Ok{};
}

}  // namespace

Result<WorkerOptions> parse_command_line(int argc, char** argv) {
  WorkerOptions options;
  opterr = 0;
  optind = 0;  // start over, should this not be the first call
  for (int which; (which = getopt_long(argc, argv, "", kLong, nullptr)) != -1;) {
    if (which == '?') {
      return Error{std::string("unknown or incomplete option ") + argv[optind - 1]};
    }
    if (Status set_status = set(which, optarg, options); !set_status) {
      return set_status.error();
    }
  }
  if (optind < argc) {
    return Error{std::string("unexpected argument ") + argv[optind]};
  }
  if (Status checked = check(options); !checked && !options.help) {
    return checked.error();
  }
  return options;
}

}  // namespace penstock
