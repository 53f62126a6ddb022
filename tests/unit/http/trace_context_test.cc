#include "shared/http/trace_context.h"

#include <gtest/gtest.h>

#include <string>

namespace penstock::http {
namespace {

const std::string kGood = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

TEST(TraceContextTest, WhatIsReadIsWrittenAgain) {
  const auto context = parse_traceparent(kGood);
  ASSERT_TRUE(context);
  EXPECT_TRUE(context->sampled());
  EXPECT_EQ(hex_of(context->trace), "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(hex_of(context->parent), "b7ad6b7169203331");
  EXPECT_EQ(render_traceparent(*context), kGood);
  EXPECT_FALSE(parse_traceparent(kGood.substr(0, 53) + "00")->sampled());
}

TEST(TraceContextTest, RulesOfTheStandard) {
  const auto with = [](size_t at, const std::string& text) {
    std::string changed = kGood;
    return changed.replace(at, text.size(), text);
  };
  for (const std::string& bad :
       {std::string(), kGood.substr(0, 54), kGood + "-", kGood + "0", kGood + "-extra",
        with(0, "ff"), with(0, "0x"), with(2, "_"), with(35, "_"), with(52, "_"),
        with(3, std::string(32, '0')), with(36, std::string(16, '0')), with(5, "A"), with(40, "G"),
        with(53, "0G")}) {
    EXPECT_FALSE(parse_traceparent(bad)) << bad;
  }
  EXPECT_TRUE(parse_traceparent(with(0, "01"))) << "a later version";
  EXPECT_TRUE(parse_traceparent(with(0, "cc") + "-what-the-future-will-be-like"));
  EXPECT_FALSE(parse_traceparent(with(0, "cc") + ".what-the-future-will-be-like"));
  EXPECT_EQ(parse_traceparent(with(53, "ff"))->flags, TraceContext::kSampled);
}

TEST(TraceContextTest, AStateIsCleanedAndBounded) {
  EXPECT_EQ(clean_tracestate(" rojo=00f067aa0ba902b7 ,, congo=t61rcWkgMzE\t"),
            "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
  EXPECT_EQ(clean_tracestate("a@b=1,0c-d_e*f/g=x y"), "a@b=1,0c-d_e*f/g=x y");
  for (const char* const bad : {"a", "=1", "A=1", "a=", "a=1=2", "a=\x01", "a\xff=1", "_a=1"}) {
    EXPECT_EQ(clean_tracestate(bad), "") << bad;
  }
  std::string many;
  for (int i = 0; i < 33; ++i) {
    many += "k" + std::to_string(i) + "=1,";
  }
  EXPECT_EQ(clean_tracestate(many), "") << "at most 32";
  const std::string longest(200, 'x');
  const std::string medium(100, 'y');
  const std::string kept = "a=" + medium + ",b=" + medium + ",c=" + medium + ",d=" + medium;
  EXPECT_EQ(clean_tracestate("l=" + longest + "," + kept + ",e=" + medium + ",f=1"), kept)
      << "long ones go first, then the last";
}

TEST(TraceContextTest, HeadersAreReadFromLines) {
  const auto found = trace_headers_of("x-request-id: 1\nTraceParent: " + kGood +
                                      "\ntracestate: a=1\nTRACESTATE: b=2\n");
  ASSERT_TRUE(found);
  EXPECT_EQ(render_traceparent(found->context), kGood);
  EXPECT_EQ(found->state, "a=1,b=2");
  EXPECT_FALSE(trace_headers_of("tracestate: a=1\n"));
  EXPECT_FALSE(trace_headers_of("traceparent: " + kGood + "\ntraceparent: " + kGood + "\n"));
  EXPECT_EQ(trace_headers_of("traceparent: " + kGood + "\ntracestate: nonsense\n")->state, "");
}

}  // namespace
}  // namespace penstock::http
