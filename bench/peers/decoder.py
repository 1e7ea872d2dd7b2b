"""The decoder of Qwen3-VL in plain PyTorch, for text: grouped-query attention with QK-norm, rotary positions, gated MLPs.

Training passes see whole sequences; decoding writes one position per step into preallocated caches.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Layer(nn.Module):
    def __init__(self, d, inner, heads, kv, e):
        super().__init__()
        self.heads, self.kv, self.e = heads, kv, e
        self.before, self.after = nn.RMSNorm(d, 1e-6), nn.RMSNorm(d, 1e-6)
        self.q_norm, self.k_norm = nn.RMSNorm(e, 1e-6), nn.RMSNorm(e, 1e-6)
        self.qkv = nn.Linear(d, (heads + 2 * kv) * e, bias=False)
        self.out = nn.Linear(heads * e, d, bias=False)
        self.gate_up, self.down = nn.Linear(d, 2 * inner, bias=False), nn.Linear(inner, d, bias=False)

    def forward(self, x, cos, sin, cache=None, at=0):
        b, t, _ = x.shape
        q, k, v = self.qkv(self.before(x)).split([self.heads * self.e, self.kv * self.e, self.kv * self.e], dim=-1)
        q = rotate(self.q_norm(q.view(b, t, self.heads, self.e)), cos, sin).transpose(1, 2)
        k = rotate(self.k_norm(k.view(b, t, self.kv, self.e)), cos, sin).transpose(1, 2)
        v = v.view(b, t, self.kv, self.e).transpose(1, 2)
        if cache is not None:
            cache[0][:, :, at:at + t] = k
            cache[1][:, :, at:at + t] = v
            k, v = cache[0][:, :, :at + t], cache[1][:, :, :at + t]
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=t > 1, enable_gqa=self.heads != self.kv)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, -1))
        gate, up = self.gate_up(self.after(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


def rotate(x, cos, sin):
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-high, low], dim=-1) * sin


class Decoder(nn.Module):
    def __init__(self, text):
        super().__init__()
        self.text = text
        d, e = text["hidden_size"], text["head_dim"]
        self.embed = nn.Embedding(text["vocab_size"], d)
        nn.init.normal_(self.embed.weight, std=0.02)
        make = lambda: Layer(d, text["intermediate_size"], text["num_attention_heads"], text["num_key_value_heads"], e)
        self.layers = nn.ModuleList(make() for _ in range(text["num_hidden_layers"]))
        self.norm = nn.RMSNorm(d, 1e-6)

    def tables(self, start, count):
        half = self.text["head_dim"] // 2
        frequency = self.text["rope_theta"] ** (-torch.arange(half) / half)
        angle = torch.arange(start, start + count)[:, None] * frequency
        angle = torch.cat([angle, angle], dim=-1)[:, None, :]
        return angle.cos(), angle.sin()

    def caches(self, batch, length):
        shape = (batch, self.text["num_key_value_heads"], length, self.text["head_dim"])
        return [(torch.zeros(shape), torch.zeros(shape)) for _ in self.layers]

    def forward(self, ids, caches=None, at=0):
        cos, sin = self.tables(at, ids.shape[1])
        x = self.embed(ids)
        for index, layer in enumerate(self.layers):
            x = layer(x, cos, sin, caches[index] if caches else None, at)
        return self.norm(x)

    def logits(self, hidden):
        return hidden @ self.embed.weight.T
