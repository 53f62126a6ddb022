#include "worker/queue/traces/job_trace.h"

#include <gtest/gtest.h>

#include <string>

namespace penstock::queue {
namespace {

constexpr Ulid kJob{.high = 77, .low = 0x1234'5678'9abc'def0};
const std::string kParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TracesConfig kOff;
const TracesConfig kOn{.url = "http://127.0.0.1:4318/v1/traces"};

TEST(JobTraceTest, WithoutACollectorWhatComesGoesOnAsItIs) {
  EXPECT_EQ(begin_trace(kJob, "", "/v1/completions", kOff), nullptr);
  EXPECT_EQ(begin_trace(kJob, "traceparent: nonsense\n", "/", kOff), nullptr);
  const auto trace =
      begin_trace(kJob, "traceparent: " + kParent + "\ntracestate: a=1\n", "/", kOff);
  EXPECT_EQ(text_of(*trace), kParent + " - - a=1");
  EXPECT_EQ(trace_headers(text_of(*trace), true),
            (std::vector<std::string>{"traceparent: " + kParent, "tracestate: a=1"}));
}

TEST(JobTraceTest, WithOneTheJobStandsBetween) {
  const auto trace =
      begin_trace(kJob, "traceparent: " + kParent + "\n", "/v1/chat/completions", kOn);
  EXPECT_EQ(trace->trace_id, "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(http::hex_of(trace->caller), "b7ad6b7169203331");
  EXPECT_EQ(trace->context.parent, span_id(kJob, kOfJob));
  EXPECT_EQ(trace->operation, "chat");
  const auto again = parse_trace(text_of(*trace));
  ASSERT_NE(again, nullptr);
  EXPECT_EQ(text_of(*again), text_of(*trace));
  EXPECT_EQ(again->caller, trace->caller);
}

TEST(JobTraceTest, WhatBeganWithoutACollectorHasNoSpanLater) {
  const std::string came = "traceparent: " + kParent + "\n";
  const auto off = parse_trace(text_of(*begin_trace(kJob, came, "/", kOff)));
  EXPECT_FALSE(off->spans);
  EXPECT_EQ(renewed_trace(text_of(*off), kJob, 1), text_of(*off));
  const std::string on = text_of(*begin_trace(kJob, came, "/", kOn));
  EXPECT_TRUE(parse_trace(on)->spans);
  EXPECT_EQ(trace_headers(on, false), std::vector<std::string>{"traceparent: " + kParent});
  EXPECT_NE(trace_headers(on, true), trace_headers(on, false));
}

TEST(JobTraceTest, QueuedAgainItHasAnotherSpanUnderTheSameCaller) {
  const auto first = begin_trace(kJob, "traceparent: " + kParent + "\n", "/", kOn);
  const auto second = parse_trace(renewed_trace(text_of(*first), kJob, 1'700'000'000'000));
  EXPECT_EQ(second->caller, first->caller);
  EXPECT_EQ(second->context.trace, first->context.trace);
  EXPECT_NE(second->context.parent, first->context.parent);
  EXPECT_NE(span_id(second->context.parent, kOfRuns), span_id(first->context.parent, kOfRuns));
}

TEST(JobTraceTest, WhoBringsNoneBeginsOneOfWhichAPartIsSampled) {
  TracesConfig config = kOn;
  int sampled = 0;
  for (const double part : {0.0, 0.25, 1.0}) {
    config.roots = part;
    sampled = 0;
    for (uint64_t i = 1; i <= 1000; ++i) {
      const auto trace = begin_trace({.high = i, .low = i * 0x9E37'79B9}, "", "/", config);
      EXPECT_EQ(trace->caller, http::SpanId{});
      const auto again = parse_trace(text_of(*trace));
      ASSERT_TRUE(again) << text_of(*trace);
      EXPECT_TRUE(again->spans && again->caller == http::SpanId{});
      EXPECT_TRUE(trace_headers(text_of(*trace), false).empty()) << "nobody's span is above";
      sampled += trace->context.sampled() ? 1 : 0;
    }
    EXPECT_NEAR(sampled, part * 1000, part == 0.25 ? 60 : 0);
  }
}

TEST(JobTraceTest, WhatIsReadBackIsHostile) {
  for (const char* const text : {"", "-", "nonsense", "00- - - -", "00-0af7 x y z"}) {
    EXPECT_EQ(parse_trace(text), nullptr);
    EXPECT_EQ(trace_id_in(text), "");
    EXPECT_TRUE(trace_headers(text, true).empty());
  }
  EXPECT_EQ(parse_trace(kParent)->state, "");
  EXPECT_EQ(parse_trace(kParent + " x - \n")->caller, http::SpanId{});
}

}  // namespace
}  // namespace penstock::queue
