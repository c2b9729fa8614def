"The attention explorer: what each head looks at, and what becomes of the mask."
