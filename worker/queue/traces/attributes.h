// The names of spans and of their attributes, all in one place.
//
// Sources: OpenTelemetry semantic conventions 1.30.
//   https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/          gen_ai.*
//   https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/    messaging.*
//   https://opentelemetry.io/docs/specs/semconv/attributes-registry/error/    error.type
//   https://opentelemetry.io/docs/specs/semconv/resource/#service             service.*
// What none of them names begins with "penstock.".
#pragma once

namespace penstock::queue::span {

// Spans. kRun is also told which operation it was: "chat", "text_completion", as gen_ai has them.
inline constexpr char kJob[] = "job";      // from its arrival to its end; the others are within it
inline constexpr char kLimit[] = "limit";  // in Nginx, until it was handed over
inline constexpr char kQueue[] = "queue";
inline constexpr char kRun[] = "run";

// The resource.
inline constexpr char kServiceName[] = "service.name";
inline constexpr char kServiceVersion[] = "service.version";
inline constexpr char kServiceInstance[] = "service.instance.id";
inline constexpr char kScope[] = "penstock";

// Of kJob and kQueue.
inline constexpr char kMessagingSystem[] = "messaging.system";
inline constexpr char kMessagingDestination[] = "messaging.destination.name";
inline constexpr char kMessageId[] = "messaging.message.id";

// Of kRun.
inline constexpr char kGenAiSystem[] = "gen_ai.system";
inline constexpr char kOperation[] = "gen_ai.operation.name";
inline constexpr char kRequestModel[] = "gen_ai.request.model";
inline constexpr char kInputTokens[] = "gen_ai.usage.input_tokens";
inline constexpr char kOutputTokens[] = "gen_ai.usage.output_tokens";

inline constexpr char kErrorType[] = "error.type";

inline constexpr char kOutcome[] = "penstock.outcome";  // "completed", "failed" ...
inline constexpr char kAttempts[] = "penstock.attempts";
inline constexpr char kDeviceMs[] = "penstock.device_ms";
inline constexpr char kOwner[] = "penstock.owner";  // the latter half of its hash

}  // namespace penstock::queue::span
