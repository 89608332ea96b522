// Assignment of an FFN's inner channels to blocks of equal size.
#include <lemon/network_simplex.h>
#include <lemon/smart_graph.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "moe/shards.h"
#include "tensor/rng.h"

namespace burrow::moe {
namespace {

// Points in C dimensions, the rows of a matrix.
struct Points {
  const double* values;
  int64_t count, C;
  const double* operator[](int64_t i) const { return values + i * C; }
  double distance(int64_t i, const double* centre) const {  // squared distance
    double sum = 0;
    for (int64_t c = 0; c < C; ++c) sum += (values[i * C + c] - centre[c]) * (values[i * C + c] - centre[c]);
    return sum;
  }
};

std::vector<double> normalised_rows(const Tensor& gate) {
  const Tensor wide = gate.to(DType::f64);
  std::vector<double> rows(wide.data<double>(), wide.data<double>() + wide.numel());
  const int64_t C = gate.dim(1);
  for (int64_t f = 0; f < gate.dim(0); ++f) {
    double squares = 0;
    for (int64_t c = 0; c < C; ++c)
      squares += rows[static_cast<size_t>(f * C + c)] * rows[static_cast<size_t>(f * C + c)];
    const double unit = squares > 0 ? 1 / std::sqrt(squares) : 0;
    for (int64_t c = 0; c < C; ++c) rows[static_cast<size_t>(f * C + c)] *= unit;
  }
  return rows;
}

// k-means++ (Arthur and Vassilvitskii 2007): picks points as centres, by squared distance from earlier ones.
std::vector<double> first_centres(const Points& points, int64_t E, Random& random) {
  std::vector<double> centres, nearest(static_cast<size_t>(points.count), HUGE_VAL);
  int64_t next = random.below(static_cast<uint32_t>(points.count));
  for (int64_t e = 0; e < E; ++e) {
    centres.insert(centres.end(), points[next], points[next] + points.C);
    double sum = 0;
    for (int64_t i = 0; i < points.count; ++i) {
      double& d = nearest[static_cast<size_t>(i)];
      d = std::min(d, points.distance(i, points[next]));
      sum += d;
    }
    double at = sum * random.unit();
    for (next = 0; next + 1 < points.count && (at -= nearest[static_cast<size_t>(next)]) > 0;) ++next;
  }
  return centres;
}

// Assigns each point to a cluster at minimum total cost, with equally many points per cluster, as a
// minimum-cost flow. costs [count,E] -> cluster of each point [count]
std::vector<int64_t> assign(const std::vector<double>& costs, int64_t count, int64_t E) {
  constexpr double kUnits = 1e9;  // units per 1 in integer costs; squared distances of unit vectors are <= 4
  lemon::SmartDigraph graph;
  graph.reserveNode(static_cast<int>(count + E));
  graph.reserveArc(static_cast<int>(count * E));
  for (int64_t i = 0; i < count + E; ++i) graph.addNode();
  lemon::SmartDigraph::NodeMap<int64_t> supply(graph);
  lemon::SmartDigraph::ArcMap<int64_t> cost(graph);
  for (int64_t i = 0; i < count; ++i) supply[graph.nodeFromId(static_cast<int>(i))] = 1;
  for (int64_t e = 0; e < E; ++e) supply[graph.nodeFromId(static_cast<int>(count + e))] = -(count / E);
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t e = 0; e < E; ++e) {
      const auto arc =
          graph.addArc(graph.nodeFromId(static_cast<int>(i)), graph.nodeFromId(static_cast<int>(count + e)));
      cost[arc] = std::llround(kUnits * costs[static_cast<size_t>(i * E + e)]);
    }
  }
  lemon::NetworkSimplex<lemon::SmartDigraph, int64_t> flow(graph);
  flow.supplyMap(supply).costMap(cost);
  BURROW_CHECK(flow.run() == decltype(flow)::OPTIMAL, "[split] no assignment of {} channels to {} blocks",
               count, E);
  std::vector<int64_t> cluster(static_cast<size_t>(count));
  for (int64_t a = 0; a < count * E; ++a) {
    if (flow.flow(graph.arcFromId(static_cast<int>(a))) > 0) cluster[static_cast<size_t>(a / E)] = a % E;
  }
  return cluster;
}

// k-means with clusters of equal size, until the assignment is stable.
std::vector<int64_t> clusters(const Tensor& gate, int64_t E, uint64_t key) {
  constexpr int kMostRounds = 50;
  const std::vector<double> rows = normalised_rows(gate);
  const Points points{rows.data(), gate.dim(0), gate.dim(1)};
  Random random(key);
  std::vector<double> centres = first_centres(points, E, random);
  std::vector<double> costs(static_cast<size_t>(points.count * E));
  std::vector<int64_t> cluster;
  for (int round = 0; round < kMostRounds; ++round) {
    for (int64_t i = 0; i < points.count; ++i) {
      for (int64_t e = 0; e < E; ++e)
        costs[static_cast<size_t>(i * E + e)] = points.distance(i, centres.data() + e * points.C);
    }
    std::vector<int64_t> now = assign(costs, points.count, E);
    if (now == cluster) break;
    cluster = std::move(now);
    std::fill(centres.begin(), centres.end(), 0);
    for (int64_t i = 0; i < points.count; ++i) {
      double* centre = centres.data() + cluster[static_cast<size_t>(i)] * points.C;
      for (int64_t c = 0; c < points.C; ++c)
        centre[c] += points[i][c] * static_cast<double>(E) / static_cast<double>(points.count);
    }
  }
  return cluster;
}

// Permutes rows or columns by copying bytes, so that values of any dtype are unchanged.
Tensor moved(const Tensor& from, const std::vector<int64_t>& order, bool rows) {
  Tensor to = Tensor::empty(from.shape(), from.dtype(), Device::cpu, "weights");
  const size_t unit = rows ? from.nbytes() / order.size() : size_of(from.dtype());
  const int64_t outer = rows ? 1 : from.dim(0);
  const auto F = static_cast<int64_t>(order.size());
  for (int64_t o = 0; o < outer; ++o) {
    for (int64_t i = 0; i < F; ++i)
      std::memcpy(to.bytes() + static_cast<size_t>(o * F + i) * unit,
                  from.bytes() + static_cast<size_t>(o * F + order[static_cast<size_t>(i)]) * unit, unit);
  }
  return to;
}

}  // namespace

std::vector<int64_t> split_order(const Tensor& gate, int64_t experts, Split split, uint64_t key) {
  const int64_t F = gate.dim(0), size = F / experts;
  std::vector<int64_t> order(static_cast<size_t>(F));
  std::iota(order.begin(), order.end(), 0);
  if (split == Split::random) {
    Random random(key);
    random.shuffle(order);
    for (int64_t e = 0; e < experts; ++e) std::sort(order.begin() + e * size, order.begin() + (e + 1) * size);
  }
  if (split == Split::clustered) {
    const std::vector<int64_t> cluster = clusters(gate, experts, key);
    std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) {
      return cluster[static_cast<size_t>(i)] < cluster[static_cast<size_t>(j)];
    });
  }
  return order;
}

void reorder(nn::FeedForward& ffn, const std::vector<int64_t>& order) {
  for (nn::Linear* linear : {&ffn.gate_proj(), &ffn.up_proj(), &ffn.down_proj()})
    linear->weight = Var(moved(linear->weight.value(), order, linear != &ffn.down_proj()));
}

}  // namespace burrow::moe
